"""Every kernel table of this machine, one after the other."""

from __future__ import annotations

import pytest
from chip_checks import TABLES


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> str:
    """Every kernel table of this machine."""
    return str(request.param)

"""Every branch of the link and the device is taken by a test."""

from __future__ import annotations

import branches
import pytest


@pytest.mark.long
@pytest.mark.board("gcc", "gcov")
def test_every_branch_is_taken() -> None:
    found = branches.measure([])
    assert branches.missed(found) == []
    beyond = sum(b.count == 0 for its in found.values() for b in its)
    assert beyond <= len(branches.BEYOND)
    assert sum(map(len, found.values())) > 1000

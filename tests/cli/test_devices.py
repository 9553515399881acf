"""The commands on a board: what they write is what the emulator writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hwgle.cli.main import cli

RUN = ["run", "net.yaml", "--weights", "w.npz", "--input", "x.npy", "--target", "y.npy"]
pytestmark = pytest.mark.board("cc")


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {k: file[k] for k in file.files}


@pytest.mark.parametrize("options", [["--record", "r,u,uhat,v,e"], ["--learn"], ["--no-shadow"]])
@pytest.mark.usefixtures("files")
def test_run_on_the_host_board(options: list[str]) -> None:
    for device, out in (("emu:", "a.npz"), ("host:", "b.npz")):
        result = CliRunner().invoke(cli, [*RUN, *options, "--device", device, "--out", out])
        assert result.exit_code == 0, result.output
        assert device in result.output
    a, b = arrays("a.npz"), arrays("b.npz")
    assert a.keys() == b.keys()
    for key in a:
        assert np.array_equal(a[key], b[key]), key


@pytest.mark.usefixtures("files")
def test_a_board_that_is_not_there() -> None:
    result = CliRunner().invoke(cli, [*RUN, "--device", "/dev/hwgle-none", "--out", "a.npz"])
    assert result.exception is not None
    assert "cannot open /dev/hwgle-none: No such file" in str(result.exception) + result.output
    assert not Path("a.npz").exists()


@pytest.mark.usefixtures("files")
def test_a_small_board_refuses_what_does_not_fit() -> None:
    small = "host:?memory=4096&payload=64&window=1"
    result = CliRunner().invoke(cli, [*RUN, "--learn", "--device", small, "--out", "a.npz"])
    assert result.exit_code == 3, result.output
    assert "bytes are needed" in result.output
    assert "streams learn on one chip at once" in result.output

"""`hwgle scope` on a terminal (a pty), in a pipe, and with wrong options."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hwgle.cli.scope import command
from hwgle.errors import UsageError

SCOPE = [sys.executable, "-m", "hwgle", "scope"]
DEADLINE = 300.0


class OnTerminal:
    """A scope on a pty of 90 by 30."""

    def __init__(self, environment: dict[str, str], *options: str) -> None:
        self.fd, child = pty.openpty()
        more = {"COLUMNS": "90", "LINES": "30", "TERM": "vt100", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [*SCOPE, *options], env={**environment, **more}, stdin=child, stdout=child,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        os.close(child)
        self.text = ""

    def until(self, text: str, count: int = 1) -> None:
        """Read until it is there so often."""
        deadline = time.monotonic() + DEADLINE
        while self.text.count(text) < count:
            assert time.monotonic() < deadline, self.text[-500:]
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    return

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.2)[0]:
                try:  # to the last byte: what it wrote may be read after it has ended
                    self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        else:
            self.process.kill()
        assert self.process.stderr is not None
        error = self.process.stderr.read().decode()
        code = self.process.wait(DEADLINE)
        os.close(self.fd)
        return code, error


def test_keys_hold_choose_and_quit(
    files: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    scope = OnTerminal(environment, "net.yaml", "--out", "seen.svg")
    scope.until("small on ideal:0, emu:", 3)
    assert "\x1b[?1049h" in scope.text
    scope.press(" ")
    scope.until("HELD")
    scope.press("n")
    scope.until("next neuron (now 1)")
    scope.press("q")
    code, error = scope.end()
    assert code == 0, error
    assert scope.text.rstrip().endswith("\x1b[?25h\x1b[?1049l")  # the screen as it was
    assert "hidden  tanh 8" in scope.text
    assert "written  seen.svg" in error
    assert Path("seen.svg").read_text().startswith("<?xml")


def test_ctrl_c_leaves_the_terminal_and_writes_the_picture(
    files: Path, environment: dict[str, str]
) -> None:
    scope = OnTerminal(environment, "--out", "seen.png")
    scope.until("plain on ideal:0, emu:", 2)
    os.kill(scope.process.pid, signal.SIGINT)
    code, error = scope.end()
    assert code == 130
    assert "Traceback" not in error
    assert scope.text.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    assert Path("seen.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_terminal_each_frame_is_a_line(files: Path) -> None:
    options = ["net.yaml", "--weights", "w.npz", "--frames", "3", "--steps", "20", "--rate", "0"]
    one = CliRunner().invoke(command, [*options, "--out", "a.svg"])
    assert one.exit_code == 0, one.exception
    found = one.stdout.splitlines()
    assert [line.split(" | ")[0] for line in found] == ["step 20", "step 40", "step 60"]
    assert all("hidden: rms u " in line and "out: rms u " in line for line in found)
    two = CliRunner().invoke(command, [*options, "--out", "b.svg"])
    assert two.stdout.replace("b.svg", "a.svg") == one.stdout
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()
    other = CliRunner().invoke(command, [*options, "--seed", "1"])
    assert other.stdout != one.stdout


def test_files_and_pipes(files: Path, environment: dict[str, str]) -> None:
    np.save("flat.npy", np.load("x.npy")[:, 0])
    np.savetxt("x.txt", np.load("flat.npy"))
    options = ["net.yaml", "--weights", "w.npz", "--steps", "16", "--rate", "0"]
    told = CliRunner().invoke(command, [options[0], "flat.npy", *options[1:]])
    assert [line.split(" | ")[0] for line in told.stdout.splitlines()] == [
        "step 16", "step 32", "step 40",
    ]  # fmt: skip
    looped = CliRunner().invoke(
        command, [options[0], "flat.npy", *options[1:], "--loop", "--frames", "5"]
    )
    assert looped.stdout.splitlines()[-1].startswith("step 72 ")
    made = subprocess.run(
        [*SCOPE[:3], "run", "net.yaml", "--weights", "w.npz", "--input", "x.npy", "--out", "o.npz"],
        env=environment, capture_output=True, check=True,
    )  # fmt: skip
    assert made.returncode == 0
    with open("x.txt", "rb") as stdin:
        piped = subprocess.run(
            [*SCOPE, options[0], "-", *options[1:], "--scales", "o.npz"], env=environment,
            stdin=stdin, capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.splitlines()[-1].startswith("step 40 ")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--signals", "u,x"], "--signals: no x; allowed: u, r, e"),
        (["--signals", ","], "--signals: none"),
        (["--weights", "w.npz"], "of which NETWORK?"),
        (["net.yaml", "-"], "--scales: standard input cannot be calibrated on"),
        (["net.yaml", "x.npy", "--learn"], "--learn: FILE has no targets"),
        (["net.yaml", "--loop"], "--loop: only a FILE"),
        (["--learning-rate", "0.01"], "--learning-rate: only together with --learn"),
        (["--out", "a.pdf"], "ends in .svg or .png"),
        (["--out", "none/a.svg"], "there is no folder none"),
        (["--device", "nothing"], "device 'nothing' is not known"),
    ],
)
def test_wrong_usage_is_told(files: Path, options: list[str], told: str) -> None:
    result = CliRunner().invoke(command, options)
    assert isinstance(result.exception, UsageError)
    assert told in str(result.exception)


@pytest.mark.long
def test_the_line_to_a_board_is_shown(files: Path) -> None:
    result = CliRunner().invoke(command, ["--device", "host:", "--frames", "3", "--learn"])
    assert result.exit_code == 0, result.exception
    assert "line " in result.stdout.splitlines()[-1]
    assert "round trip" in result.stdout

"""Every kind of line: sockets, handles without a descriptor, paced ports, bad lines."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import serial

from hwgle.boards import start_host
from hwgle.devices import open_board
from hwgle.devices.faults import FaultLine, Faults, Way
from hwgle.devices.line import DescriptorLine, open_line
from hwgle.devices.serial import SerialDevice
from hwgle.errors import DeviceError, LinkLost, UsageError

host = pytest.mark.board("cc")
BUSY = 8.0  # seconds that a busy machine may add to what the device promises
DATA = bytes(range(256)) * 3


class Bridge:
    """A TCP server in front of a pty, as ser2net is."""

    def __init__(self, port: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._tty = serial.Serial(port, timeout=0)
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._peer, _ = self._listener.accept()
            while True:
                ready, _, _ = select.select([self._peer, self._tty], [], [])
                if self._peer in ready:
                    if not (data := self._peer.recv(4096)):
                        return
                    self._tty.write(data)
                if self._tty in ready:
                    self._peer.sendall(self._tty.read(4096))
        except (OSError, ValueError, TypeError):
            return

    def drop(self) -> None:
        """The network goes away."""
        assert self._peer is not None
        self._peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._listener.close()
        self._thread.join(2)
        self._tty.close()


@pytest.fixture
def port() -> Iterator[str]:
    with start_host() as board:
        yield board.port


@host
def test_a_socket_is_a_line(port: str) -> None:
    bridge = Bridge(port)
    try:
        with open_board(f"socket://{bridge.address}") as device:
            assert device.echo(DATA) == DATA
            bridge.drop()
            begun = time.monotonic()
            with pytest.raises(LinkLost, match="unplugged"):
                device.echo(DATA)
            assert time.monotonic() - begun < 2.0 + BUSY
    finally:
        bridge.close()


@host
def test_a_handle_without_a_descriptor_is_read_with_time_outs(port: str) -> None:
    with open_board(f"spy://{port}?file={os.devnull}") as device:
        assert device.port._line.descriptor is None
        assert device.echo_many([DATA] * 20) == [DATA] * 20


@host
def test_a_real_port_is_paced_by_its_baud_rate(port: str) -> None:
    handle = serial.Serial(port, 115200, timeout=0)
    with SerialDevice(DescriptorLine(handle, 115200), "paced") as device:
        assert device.port._line.paced
        assert device.echo(DATA) == DATA


@host
def test_a_port_is_ours_alone(port: str) -> None:
    with (
        open_board(port),
        pytest.raises(DeviceError, match="another program holds it"),
    ):
        open_board(port)


@host
def test_a_paced_line_takes_its_time(port: str) -> None:
    rate = 400_000
    line = FaultLine(open_line(port, 115200), Faults(pace=rate))
    with SerialDevice(line, "paced") as device:
        deadline = time.monotonic() + 60
        rates: list[float] = []
        # Never faster than it may be; as fast as that once this machine has time for it.
        while not rates or (max(rates) <= rate * 0.5 and time.monotonic() < deadline):
            before, begun = device.port.statistics(), time.monotonic()
            device.echo_many([DATA] * 40)
            seconds = time.monotonic() - begun
            moved = device.port.statistics()["bytes_out"] - before["bytes_out"]
            rates.append(moved * 10 / seconds)
    assert rate * 0.5 < max(rates) < rate * 1.1


def test_random_faults_follow_from_their_seed() -> None:
    faults = Faults(flip=0.01, drop=0.01, dup=0.01, insert=0.01, seed=5)
    whole = Way("out", faults, None).carry(DATA * 9)
    cut = Way("out", faults, None)
    parts = b"".join(cut.carry((DATA * 9)[k : k + 7]) for k in range(0, len(DATA) * 9, 7))
    assert whole == parts != DATA * 9
    assert Way("in", faults, None).carry(DATA * 9) != whole
    assert Way("out", Faults(seed=5), None).carry(DATA) == DATA


def test_planned_faults_strike_their_frame() -> None:
    wire = b"\0one\0\0two\0three\0"
    lost = Way("out", Faults(lose=frozenset({("out", 1), ("in", 0)})), None)
    assert lost.carry(wire[:6]) + lost.carry(wire[6:]) == b"\0one\0\0three\0"
    twice = Way("out", Faults(twice=frozenset({("out", 2)})), None)
    assert twice.carry(wire) == b"\0one\0\0two\0three\0three\0"
    pressed: list[tuple[str, int]] = []

    def press(key: tuple[str, int]) -> bytes:
        pressed.append(key)
        return b"noise"

    reset = Way("out", Faults(reset=frozenset({("out", 0)})), press)
    assert reset.carry(b"\0on") == b"\0"
    assert not pressed
    assert reset.carry(b"e\0") == b"noiseone\0"
    assert pressed == [("out", 0)]


def test_planned_faults_strike_their_byte() -> None:
    wire = b"abcdef\0"

    def carried(cut: int, **faults: set[int]) -> tuple[bytes, int]:
        aimed = {f"{k}_at": frozenset(("out", at) for at in v) for k, v in faults.items()}
        way = Way("out", Faults(**aimed), None)
        return way.carry(wire[:cut]) + way.carry(wire[cut:]), way.struck.faults

    for cut in range(len(wire) + 1):
        assert carried(cut, drop={0, 6}) == (b"bcdef", 2)
        assert carried(cut, dup={2, 3}) == (b"abccddef\0", 2)
        flipped, count = carried(cut, flip={4})
        assert count == 1
        assert flipped[:4] + flipped[5:] == b"abcdf\0"
        assert (flipped[4] ^ ord("e")).bit_count() == 1
        inserted, _ = carried(cut, insert={1})
        assert inserted[:2] + inserted[3:] == wire
        assert carried(cut, drop={99}) == (wire, 0)


def test_a_reset_needs_a_button() -> None:
    with pytest.raises(UsageError, match="reset"):
        FaultLine(None, Faults(reset=frozenset({("out", 1)})))  # type: ignore[arg-type]

"""What records: an observer of every port that is opened while it is on."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import hwgle
from hwgle._core import lib
from hwgle.devices.port import recorder
from hwgle.errors import DeviceError
from hwgle.recording.file import END, PORT, WAYS, Head, Writer


class Recorder:
    """Writes what ports hand on and receive. Each port has a thread; that tells them apart."""

    def __init__(self, path: Path, command: Sequence[str]) -> None:
        self.path = path
        head = Head(
            command=tuple(command),
            hwgle=hwgle.__version__,
            python=platform.python_version(),
            system=f"{platform.system()} {platform.machine()}",
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            messages=int(lib.message_list_crc()),
            link=int(lib.LINK_VERSION),
        )
        self._writer = Writer(path, head)
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._ports: dict[threading.Thread, int] = {}
        self._failed: OSError | None = None
        self._closed = False  # a port may live on behind it
        self.bytes = 0

    @property
    def ports(self) -> int:
        """Ports that were opened so far."""
        return len(self._ports)

    def __call__(self, way: str, data: bytes, moment: float) -> None:
        """See Observer in hwgle/devices/port.py; never raises into the port's thread."""
        with self._lock:
            if self._failed is not None or self._closed:
                return
            thread = threading.current_thread()
            nanoseconds = max(0, round((moment - self._begun) * 1e9))
            try:
                port = self._ports.get(thread)
                if port is None:
                    port = self._ports[thread] = min(len(self._ports), 255)
                    name = thread.name.removeprefix("hwgle ")
                    self._writer.append_json(PORT, port, nanoseconds, {"device": name})
                self._writer.append(WAYS[way], port, nanoseconds, data)
                self.bytes += len(data)
            except OSError as error:
                self._failed = error

    def close(self, ended: str) -> None:
        """Write how it ended. Raises DeviceError when the recording is not complete."""
        with self._lock:
            nanoseconds = round((time.monotonic() - self._begun) * 1e9)
            try:
                if self._failed is None:
                    self._writer.append_json(END, 0, nanoseconds, {"ended": ended})
            except OSError as error:
                self._failed = error
            finally:
                self._closed = True
                self._writer.close()
        if self._failed is not None:
            why = self._failed.strerror or self._failed
            raise DeviceError(f"{self.path}: the recording is not complete: {why}")


@contextmanager
def recording(path: Path, command: Sequence[str]) -> Iterator[Recorder]:
    """Every port that is opened inside is recorded."""
    on = Recorder(path, command)
    token = recorder.set(on)
    ended = "done"
    try:
        yield on
    except BaseException as error:
        ended = type(error).__name__
        raise
    finally:
        recorder.reset(token)
        on.close(ended)

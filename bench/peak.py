"""The machine's int16 multiply-accumulate peaks: what a core could do at the very most.

peak.c is compiled when the bench runs (cffi, a temporary directory), so that nothing of it
is in the installed package.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

from cffi import FFI

DECLARATIONS = """
    int32_t bench_peak_macs(int32_t vnni);
    void bench_peak_run(int32_t vnni, int64_t rounds);
"""
SOURCE = Path(__file__).with_name("peak.c")
INSTRUCTIONS = {"avx2": 0, "vnni": 1}  # by kernel table
SECONDS = 0.01  # CPU time of one measurement


class Peak:
    """The peak of one core with the instructions of one kernel table, avx2 or vnni."""

    def __init__(self, name: str, lib: Any) -> None:
        self.name = name
        self._lib, self._which = lib, INSTRUCTIONS[name]
        self._macs = int(lib.bench_peak_macs(self._which))
        self._rounds = 10_000
        while (seconds := self._time()) < SECONDS:
            self._rounds = int(self._rounds * min(10.0, 1.2 * SECONDS / max(seconds, 1e-6))) + 1

    def gmacs(self) -> float:
        """Measure once, about 10 ms of CPU time: 10^9 multiply-accumulates per second."""
        return self._rounds * self._macs / self._time() / 1e9

    def _time(self) -> float:
        begun = time.process_time()
        self._lib.bench_peak_run(self._which, self._rounds)
        return time.process_time() - begun


def peaks() -> dict[str, Peak]:
    """Those that this CPU has, by name.

    Raises:
        RuntimeError: no compiler, no Python headers, or none of the instructions; says which.
    """
    lib = _compiled()
    found = {n: Peak(n, lib) for n, which in INSTRUCTIONS.items() if lib.bench_peak_macs(which)}
    if not found:
        raise RuntimeError("no AVX2 on this CPU")
    return found


def _compiled() -> Any:
    ffi = FFI()
    ffi.cdef(DECLARATIONS)
    name = "_hwgle_bench_peak"
    ffi.set_source(name, SOURCE.read_text(), extra_compile_args=["-O2"])
    with tempfile.TemporaryDirectory() as folder:
        try:
            built = ffi.compile(tmpdir=folder, verbose=False)
        except Exception as error:  # whatever the compiler or the build tools raise
            raise RuntimeError(f"peak.c does not compile here: {error}") from error
        # Loaded once, the file is no longer needed.
        spec = importlib.util.spec_from_file_location(name, built)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"{built} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.lib

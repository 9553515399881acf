"""C code that a bench compiles when it runs, so that nothing of it is in the installed package."""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any

from cffi import FFI


def module(name: str, source: str, declarations: str, **options: Any) -> Any:
    """The source as a module of cffi, with `lib` and `ffi`. options: of FFI.set_source.

    Raises RuntimeError where there is no compiler, there are no Python headers, or the source is
    refused; says which.
    """
    ffi = FFI()
    ffi.cdef(declarations)
    ffi.set_source(name, source, **options)
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = ffi.compile(tmpdir=folder, verbose=False)
        except Exception as error:  # whatever the compiler or the build tools raise
            raise RuntimeError(f"{name} does not compile here: {error}") from error
        # Loaded once, the file is no longer needed.
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"{path} cannot be loaded")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    return loaded

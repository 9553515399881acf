"""The compiled core; everything else is declared in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["csrc/build_core.py:ffi"],
    # An in-place build compares dates with the listed sources only and would
    # keep an old core when nothing but a header has changed.
    options={"build_ext": {"force": True}},
)

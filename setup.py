"""The compiled core, and the C sources that a wheel carries; all else is in pyproject.toml."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

SOURCES = ("csrc", "firmware")


class BuildPy(build_py):
    """A wheel carries the sources of core and firmware, to build boards' images from."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # they are found beside the package
        for name in SOURCES:
            to = Path(self.build_lib) / "hwgle" / "_sources" / name
            copytree(name, to, dirs_exist_ok=True, ignore=ignore_patterns("__pycache__", "*.o"))


class Sdist(sdist):
    """setuptools lists what it compiles, but neither headers nor the firmware."""

    def add_defaults(self) -> None:
        super().add_defaults()
        for name in SOURCES:
            self.filelist.extend(str(path) for path in Path(name).rglob("*") if path.is_file())


setup(
    cffi_modules=["csrc/build_core.py:ffi"],
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
    # An in-place build compares dates with the listed sources only and would
    # keep an old core when nothing but a header has changed.
    options={"build_ext": {"force": True}},
)

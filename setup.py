"""The compiled core, and the C sources that a wheel carries; all else is in pyproject.toml."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

SOURCES = ("csrc", "firmware")


class BuildExt(build_ext):
    """setuptools compiles the files of an extension one after the other; here all cores do.

    The number of compilers at a time is that of --parallel, if it is given.
    """

    def build_extensions(self) -> None:
        compiler = self.compiler
        one_by_one = compiler.compile

        def compile_together(sources, output_dir=None, *args, **options):
            # Folders beforehand: compilers that start together would each make them.
            for made in compiler.object_filenames(sources, output_dir=output_dir or ""):
                Path(made).parent.mkdir(parents=True, exist_ok=True)

            def one(source):
                return one_by_one([source], output_dir, *args, **options)

            with ThreadPoolExecutor(jobs(self.parallel)) as pool:
                try:
                    return [made for objects in pool.map(one, sources) for made in objects]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

        compiler.compile = compile_together
        super().build_extensions()


def jobs(asked: int | bool | None) -> int:
    """Compilers at a time: what was asked for, or one for each core that this process may use."""
    if asked and asked is not True:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy, "sdist": Sdist},
    # An in-place build compares dates with the listed sources only and would
    # keep an old core when nothing but a header has changed.
    options={"build_ext": {"force": True}},
)

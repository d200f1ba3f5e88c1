"""Builds the BPF objects and the engine into the packages where compilers are at hand; the rest is in pyproject.toml.

A wheel with the engine is one for this platform and every Python (``py3-none-linux_x86_64``): the engine does not use
Python's API. Without a C compiler the wheel has no engine, is for any platform, and commands that need it say so.
"""

import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def can_build_engine() -> bool:
    return bool(shutil.which("make") and any(map(shutil.which, ("gcc", "clang", "cc"))))


class BuildWithObjects(build_py):
    """``make`` before the Python files are collected, so that wheels carry what it compiles."""

    def run(self) -> None:
        if shutil.which("clang"):
            make("bpf")
        if can_build_engine():
            make("engine")
        super().run()


def make(folder: str) -> None:
    subprocess.run(["make", "--quiet", "--directory", str(ROOT / folder)], check=True)


class WithEngine(Distribution):
    def has_ext_modules(self) -> bool:
        """Whether the files go where those of one platform go."""
        return can_build_engine()


class WheelForEveryPython(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(distclass=WithEngine, cmdclass={"build_py": BuildWithObjects, "bdist_wheel": WheelForEveryPython})

"""Builds the BPF objects into the packages when clang is at hand; everything else is in pyproject.toml."""

import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithBpf(build_py):
    """``make -C bpf`` before the Python files are collected, so that wheels carry the compiled objects."""

    def run(self) -> None:
        if shutil.which("clang"):
            subprocess.run(["make", "--quiet", "--directory", str(Path(__file__).parent / "bpf")], check=True)
        super().run()


setup(cmdclass={"build_py": BuildWithBpf})

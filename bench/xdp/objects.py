"""BPF objects of the measurement, compiled as bpf/Makefile compiles the enforcer's own."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

PROGRAMS = Path(__file__).parents[1] / "programs"
ENFORCER_SOURCE = Path(__file__).parents[2] / "bpf" / "xdp_untracked.bpf.c"


def compiled(source: Path, directory: Path, *, abort_passed: bool = False) -> Path:
    """The object of a source; with ``abort_passed`` what it would pass is dropped (programs/abort_passed.h)."""
    target = directory / f"{source.name.removesuffix('.bpf.c')}{'-abort' if abort_passed else ''}.bpf.o"
    if target.exists():
        return target
    machine = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    command = ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-std=gnu11", "-Wall", "-Wno-unused-parameter"]
    command += ["-I", str(ENFORCER_SOURCE.parent / "include"), "-I", f"/usr/include/{machine}"]
    if abort_passed:
        command += ["-include", str(PROGRAMS / "abort_passed.h")]
    subprocess.run([*command, "-c", str(source), "-o", str(target)], check=True)
    return target

"""python-iptables, imported without its side effects: it runs gcc, ld, ldconfig and modprobe.

It looks for its C libraries with ``ctypes.util.find_library``, which runs the first compiler on ``$PATH``, and follows
a symbolic link with the library's name in the current directory. A drill runs as root, perhaps in somebody else's
checkout. So its module ``iptc.util``, of which it uses three functions, is replaced by ours: it opens libraries by
soname as the dynamic linker finds them, and python-iptables' own wrapper from the directory of its package.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import sysconfig
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from enforcer.kernel.ip_tables import MODULES, request_module
from enforcer.model.errors import HostError

_SONAMES = {"xtables": ("libxtables.so", 12), "ip4tc": ("libip4tc.so", 2), "ip6tc": ("libip6tc.so", 2)}
_WRAPPER = "xtwrapper"
_EXTENSIONS = "XTABLES_LIBDIR"  # python-iptables runs ldconfig if it is not set
_VERSIONS = {module: version for version, module in MODULES.items()}


@cache
def python_iptables() -> Any:
    """The module ``iptc``. Raises HostError, naming the package, when a library is missing."""
    kept = os.environ.get(_EXTENSIONS)
    os.environ[_EXTENSIONS] = _extensions()
    sys.modules["iptc.util"] = _util()
    try:
        return importlib.import_module("iptc")
    except Exception as error:  # AttributeError, OSError or XTablesError, depending on the missing library
        raise HostError(
            f"python-iptables cannot load libiptc or libxtables ({error}); install the Debian package 'iptables'"
        ) from error
    finally:
        os.environ.pop(_EXTENSIONS)
        if kept is not None:
            os.environ[_EXTENSIONS] = kept


def _util() -> ModuleType:
    module = ModuleType("iptc.util")
    vars(module).update(find_library=_find_library, find_libc=_find_libc, load_kernel=_load_kernel)
    return module


def _find_library(*names: str) -> tuple[ctypes.CDLL | None, int | None]:
    """The first of these libraries that exists, and its version."""
    for name in names:
        if name == _WRAPPER:
            return ctypes.CDLL(str(_wrapper()), mode=ctypes.RTLD_GLOBAL), 0
        if name in _SONAMES:
            stem, version = _SONAMES[name]
            with suppress(OSError):
                return ctypes.CDLL(f"{stem}.{version}", mode=ctypes.RTLD_GLOBAL), version
    return None, None


def _find_libc() -> ctypes.CDLL:
    return ctypes.CDLL("libc.so.6", mode=ctypes.RTLD_GLOBAL)


def _load_kernel(name: str, exc_if_failed: bool = False) -> None:
    request_module(_VERSIONS[name])


def _wrapper() -> Path:
    """``libxtwrapper``, which python-iptables installs next to its package."""
    spec = importlib.util.find_spec("iptc")
    assert spec
    assert spec.origin
    return Path(spec.origin).parents[1] / f"libxtwrapper{sysconfig.get_config_var('EXT_SUFFIX')}"


def _extensions() -> str:
    """Where iptables keeps its matches and targets (``xtables`` in the library directory)."""
    given = os.environ.get(_EXTENSIONS)
    if given:
        return given
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = (Path("/usr/lib") / multiarch, Path("/usr/lib64"), Path("/usr/lib"), Path("/lib") / multiarch)
    found = [folder / "xtables" for folder in folders if (folder / "xtables").is_dir()]
    if not found:
        raise HostError(f"no directory of iptables' matches and targets; {_EXTENSIONS} may name one")
    return str(found[0])

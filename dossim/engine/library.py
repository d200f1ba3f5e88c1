"""Finds and loads ``libengine.so``, which ``make -C engine`` builds and wheels carry.

It does not use Python's API, so ctypes releases the GIL during each call, and one build serves every Python.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from enforcer.model.errors import HostError

LIBRARY = Path(__file__).parents[1] / "_engine" / "libengine.so"
ABI = 28  # ENGINE_ABI of engine/engine.h
ANOTHER = "DOSSIM_ENGINE"  # the path of another build, such as that of 'make -C engine sanitize'

_BUILD = "build it with 'make -C engine' (needs gcc or clang), or install a wheel for this platform"


@cache
def library() -> ctypes.CDLL:
    """The loaded engine. Raises HostError where there is none, it cannot be loaded, or it is of another version."""
    path = Path(os.environ.get(ANOTHER) or LIBRARY)
    if not path.is_file():
        raise HostError(f"{path}: the engine is not there; {_BUILD}")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise HostError(f"{path}: the engine cannot be loaded: {error}; {_BUILD}") from error
    if (found := _abi(loaded)) != ABI:
        raise HostError(f"{path}: the engine is of another version: interface {found}, not {ABI}; {_BUILD}")
    return loaded


def function(name: str, arguments: Sequence[Any], result: Any) -> Callable[..., Any]:
    """A function of the engine, with its ctypes signature. Raises HostError as :func:`library`."""
    found = library()[name]  # not shared: attributes of the library would be, with their signature
    found.argtypes, found.restype = list(arguments), result
    return found


def _abi(loaded: ctypes.CDLL) -> int | str:
    try:
        return int(loaded["engine_abi"]())
    except AttributeError:
        return "unknown"

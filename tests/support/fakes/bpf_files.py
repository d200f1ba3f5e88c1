"""The BPF file system of the fake: a directory whose changes are calls of the fake, which can fail like others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from tests.support.fakes.bpf import FakeBpf


@contextmanager
def files_noted(bpf: FakeBpf) -> Iterator[None]:
    """Inside the block, changes of files below the fake's pins are calls."""
    with ExitStack() as stack:
        for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
            stack.enter_context(patch.object(os, name, _noted(bpf, name, getattr(os, name))))
        yield


def _noted(bpf: FakeBpf, name: str, original: Callable[..., None]) -> Callable[..., None]:
    def call(path: Any, *others: Any, dir_fd: int | None = None, **more: Any) -> None:
        place = os.fsdecode(path)
        if dir_fd is not None:
            place = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), place)
            more["dir_fd"] = dir_fd
        below = place.removeprefix(f"{bpf.pins}/")
        if below == place != str(bpf.pins):
            original(path, *others, **more)
            return
        with bpf.noted(f"{name} {'.' if below == place else below}", changes=True):
            original(path, *others, **more)

    return call

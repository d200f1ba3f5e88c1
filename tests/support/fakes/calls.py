"""Shared by all fakes of the kernel's APIs: every call is recorded, and any call can be made to fail.

A call fails *before* it has an effect, as if the kernel refused it, or *after*, as if the process were killed right
after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """The call with this number, counted from 0, raises ``error()``."""

    number: int
    error: Callable[[], BaseException]
    after: bool = False


@dataclass
class Calls:
    """The calls of a fake in their order.

    ``intrude`` is called before every call, with its number, and can act as another program; ``observe`` is called
    after every call that changed something.
    """

    log: list[str] = field(default_factory=list)
    fault: Fault | None = None
    intrude: Callable[[int], None] | None = None
    observe: Callable[[str], None] | None = None

    @contextmanager
    def noted(self, name: str, *, changes: bool = False) -> Iterator[None]:
        """The block is one call with this name."""
        if self.intrude:
            self.intrude(len(self.log))
        fault = self.fault if self.fault and self.fault.number == len(self.log) else None
        self.log.append(name)
        if fault and not fault.after:
            raise fault.error()
        yield
        if changes and self.observe:
            self.observe(name)
        if fault:
            raise fault.error()


class Killed(BaseException):
    """Simulates the end of the process: nothing catches it."""

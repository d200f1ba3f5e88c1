"""Whether a netfilter backend has state of the enforcer, checked without creating or loading anything."""

from __future__ import annotations

from collections.abc import Callable

from enforcer.model.errors import HostError, PrivilegeError, ran_out


def has_state(ask: Callable[[], bool]) -> bool:
    """The answer of ``ask``; False where the host has no such backend: then it has no state of ours.

    Raises PrivilegeError, and KernelError where the host has run out of something: neither says what is there.
    """
    try:
        return ask()
    except PrivilegeError:
        raise
    except HostError as error:
        if ran_out(error):
            raise
        return False

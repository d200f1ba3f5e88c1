"""Whether a netfilter backend holds state of the enforcer, checked without creating or loading anything."""

from __future__ import annotations

from collections.abc import Callable

from enforcer.model.errors import HostError, PrivilegeError, ran_out


def has_state(check: Callable[[], bool]) -> bool:
    """The result of ``check``; False if the host does not have the backend, and so no state of ours.

    Raises PrivilegeError, and KernelError if the host has run out of a resource: neither tells whether there is state.
    """
    try:
        return check()
    except PrivilegeError:
        raise
    except HostError as error:
        if ran_out(error):
            raise
        return False

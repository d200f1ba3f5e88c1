"""Whether something of ours is in a netfilter, asked so that nothing is made or loaded by asking."""

from __future__ import annotations

from collections.abc import Callable

from enforcer.model.errors import HostError, PrivilegeError, ran_out


def is_there(ask: Callable[[], bool]) -> bool:
    """What ``ask`` answers; False where the host has no such netfilter: then nothing of ours can be in it.

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

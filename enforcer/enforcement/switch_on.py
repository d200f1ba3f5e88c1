"""The first time that a host gets chains after conntrack which deny: what has to hold, and in which order.

1. Refused where Felix has chains, or conntrack would take up no connection in midstream.
2. The chains enter without denies: they match on conntrack states, so conntrack counts from here on, if it did not.
3. Wait a moment until it knows the established connections that the policy would deny; refused while one is left.
4. The denies enter, which is the caller's part.

A pass that finds denies of ours in the kernel does nothing of this: its connections are known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from socket import if_indextoname

from enforcer.backends.registry import Backends
from enforcer.enforcement.lockout import (
    CONSENT,
    Lost,
    SwitchOn,
    lost_connections,
    why_not_with_cut,
    why_not_with_felix,
    why_not_without_loose,
    without_denies,
)
from enforcer.kernel.sockets import TcpSocket, established, is_tracked, leaves_by, tcp_loose
from enforcer.model.errors import HostError
from enforcer.planning.plan import Plan

WAIT_S = 3.0
_LOOK_EVERY_S = 0.05


def is_switched_on(backends: Backends) -> bool:
    """Whether there are denies of ours after conntrack."""
    return any(holding.tracked for driver in backends.raw for holding in driver.status().values())


def switch_on(plan: Plan, backends: Backends, *, cut_established: bool, dry_run: bool) -> tuple[SwitchOn, list[str]]:
    """Everything but the denies; what was found, and what was changed. In a dry run nothing is, and nobody waits."""
    refused = [
        *why_not_with_felix(found.felix for found in (driver.others_rules() for driver in backends.raw) if found.felix),
        *why_not_without_loose(tcp_loose()),
    ]
    changes: list[str] = []
    if not refused and not dry_run:
        changes += backends.apply(without_denies(plan)).changes
        refused += why_not_without_loose(tcp_loose())  # of a conntrack that was loaded just now
    try:
        lost = _lost(plan, wait_s=0.0 if dry_run or refused else WAIT_S)
    except HostError as error:
        if not cut_established:
            refused.append(f"normal policy is not enforced: what it would cut is unknown: {error}; or use {CONSENT}")
        return SwitchOn(tuple(refused)), changes
    found = SwitchOn(lost=tuple(lost))
    if not cut_established:
        refused += why_not_with_cut(found.cut)
    return SwitchOn(tuple(refused), found.lost), changes


def _lost(plan: Plan, *, wait_s: float) -> list[Lost]:
    """The connections that the policy denies, were they NEW. Waits up to ``wait_s`` until conntrack knows them."""
    deadline_s = time.monotonic() + wait_s
    tables = [item.table for item in plan.tracked if item.enforced]
    while True:
        sockets = _with_interfaces(established())
        found = [replace(item, known=is_tracked(item.socket)) for item in lost_connections(tables, sockets)]
        if time.monotonic() >= deadline_s or not any(item.is_cut for item in found):
            return found
        time.sleep(_LOOK_EVERY_S)


def _with_interfaces(sockets: list[TcpSocket]) -> Mapping[TcpSocket, str]:
    return dict(_named(sockets))


def _named(sockets: list[TcpSocket]) -> Iterator[tuple[TcpSocket, str]]:
    for item in sockets:
        if index := leaves_by(item):
            try:
                yield item, if_indextoname(index)
            except OSError:  # the interface has gone meanwhile
                continue

"""Probes whether the iptables backend works in this namespace."""

from __future__ import annotations

from collections.abc import Callable

from enforcer.backends.iptables.ipset import Connect, ipsets
from enforcer.backends.iptables.rules import TableId, TableName
from enforcer.backends.iptables.table import LEGACY, Tables
from enforcer.model.errors import HostError, PrivilegeError, ran_out
from enforcer.model.facts import Probe
from enforcer.model.vocabulary import Answer


def probe(*, ipv6: bool = True, tables: Tables = LEGACY, connect: Connect = ipsets) -> Probe:
    """Whether the raw tables and ipsets can be used here. Opening a raw table creates it, empty, if it does not exist.

    NO if the kernel lacks a part, UNKNOWN if privileges are missing. Raises KernelError if the host has run out of a
    resource.
    """
    parts = (
        lambda: _open_raw(tables, 4),
        *((lambda: _open_raw(tables, 6),) if ipv6 else ()),
        lambda: _open_sets(connect),
    )
    answers = [_try(part) for part in parts]
    for answer in (Answer.NO, Answer.UNKNOWN):
        reasons = [item.reason for item in answers if item.answer is answer]
        if reasons:
            return Probe(answer, "; ".join(dict.fromkeys(reasons)))
    return Probe(Answer.YES)


def _try(part: Callable[[], None]) -> Probe:
    try:
        part()
    except PrivilegeError as error:
        return Probe(Answer.UNKNOWN, str(error))
    except HostError as error:
        if ran_out(error):  # says nothing about the kernel, and a NO would move the host to the other backend
            raise
        return Probe(Answer.NO, str(error))
    return Probe(Answer.YES)


def _open_raw(tables: Tables, version: int) -> None:
    with tables.open(TableId(version, TableName.RAW)):
        pass


def _open_sets(connect: Connect) -> None:
    """Asks for the version of the protocol. Listing the sets would make the kernel count their members."""
    with connect():
        pass

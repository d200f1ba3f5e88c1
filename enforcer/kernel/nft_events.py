"""Changes by other programs to some nf_tables tables, from the kernel's notifications (NFNLGRP_NFTABLES).

The kernel notifies of each object that a transaction changed, then of the new generation with the process that made it
(net/netfilter/nf_tables_api.c: ``nf_tables_commit``, ``nf_tables_fill_gen_info``). Our own transactions are notified as
well, with the port of the socket that sent them.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from enforcer.kernel.netlink import NETLINK_NETFILTER, attributes, messages, string
from enforcer.kernel.nfnetlink import SUBSYSTEM, own_ports
from enforcer.model.errors import UnsupportedKernelError

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_GROUP = 7  # NFNLGRP_NFTABLES
_SO_RCVBUFFORCE = 33
_ROOM_BYTES = 4 << 20  # a flushed set is notified member by member
_RECEIVE_BYTES = 1 << 18
_NEW_GENERATION = 15
_PROCESS_ID, _PROCESS_NAME = 2, 3  # NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

# Commands (linux/netfilter/nf_tables.h, enum nf_tables_msg_types): new, delete, and destroy (Linux 6.3).
_TABLE, _CHAIN, _RULE, _SET, _ELEMENTS = "table", "chain", "rules", "set", "elements"
_NEW = {0: _TABLE, 3: _CHAIN, 6: _RULE, 9: _SET, 12: _ELEMENTS}
_GONE = {2: _TABLE, 5: _CHAIN, 8: _RULE, 11: _SET, 14: _ELEMENTS}
_GONE |= {26: _TABLE, 27: _CHAIN, 28: _RULE, 29: _SET, 30: _ELEMENTS}
_TABLE_ATTRIBUTE = 1  # of every kind
_NAME_ATTRIBUTE = {_CHAIN: 3, _RULE: 2, _SET: 2, _ELEMENTS: 2}  # a rule's chain, an element's set
_ELEMENT_LIST, _ELEMENT_FLAGS = 3, 3
_INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END
_DELETED = "deleted"

_About = tuple[str, str, str, str]  # table, kind of object, its name, what was done


@dataclass(frozen=True)
class Change:
    """What one transaction did: one sentence for each object; ``by``: the process (``nft (pid 4711)``, "" if unknown).

    ``what`` is empty if notifications were lost (buffer overrun): the state must be read and compared.
    """

    what: tuple[str, ...]
    by: str


class NftEvents:
    """A descriptor that is readable after any transaction in the network namespace in which it was created."""

    def __init__(self, table: str) -> None:
        """``table``: report only changes to tables of this name, of any family."""
        self._table = table
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        except OSError as error:
            raise UnsupportedKernelError("the kernel has no nfnetlink (CONFIG_NETFILTER_NETLINK)") from error
        self._socket.bind((0, 0))
        self._joined = False
        self._found: Counter[_About] = Counter()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def listen(self) -> None:
        """Start listening. Call it only when nf_tables is used, because listening makes the kernel load it."""
        if not self._joined:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
            self._joined = True

    def changes(self) -> list[Change]:
        """The changes by other programs since the last call."""
        done: list[Change] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return done
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                done.append(Change((), ""))
                continue
            done += self._take(data)

    def _take(self, datagram: bytes) -> list[Change]:
        done: list[Change] = []
        for message in messages(datagram):
            if message.kind >> 8 == SUBSYSTEM and message.port not in own_ports:
                done += self._message(message.kind & 0xFF, message.family, message.attributes)
        return done

    def _message(self, command: int, family: int, body: bytes) -> list[Change]:
        if command == _NEW_GENERATION:
            found, self._found = self._found, Counter()
            return [Change(tuple(_sentences(found)), _author(body))] if found else []
        parts = dict(attributes(body))
        if string(parts.get(_TABLE_ATTRIBUTE, b"")) == self._table:
            what = _NEW.get(command) or _GONE.get(command) or "something else"
            name = string(parts.get(_NAME_ATTRIBUTE.get(what, 0), b""))
            where = f"{_FAMILIES.get(family, family)} {self._table}"
            verb = _DELETED if command in _GONE else "added or changed"
            self._found[where, what, name, verb] += _elements(parts) if what == _ELEMENTS else 1
        return []


def _elements(parts: dict[int, bytes]) -> int:
    """The number of members in a message. An interval is one, although it has a second element at its end."""
    elements = (dict(attributes(item)) for _, item in attributes(parts.get(_ELEMENT_LIST, b"")))
    return sum(int.from_bytes(item.get(_ELEMENT_FLAGS, b""), "big") & _INTERVAL_END == 0 for item in elements)


def _sentences(found: Mapping[_About, int]) -> Iterator[str]:
    """One sentence for each object. A deleted table gives only one, with the number of objects it had."""
    gone = {where for where, what, _, verb in found if (what, verb) == (_TABLE, _DELETED)}
    for where in sorted(gone):
        parts = {about: count for about, count in found.items() if about[0] == where and about[3] == _DELETED}
        chains, rules, sets = (
            sum(n for about, n in parts.items() if about[1] == what) for what in (_CHAIN, _RULE, _SET)
        )
        yield f"nftables table {where}: deleted, with {chains} chains, {rules} rules and {sets} sets"
    for about, count in found.items():
        if about[0] not in gone:
            yield _sentence(*about, count)


def _sentence(where: str, what: str, name: str, verb: str, count: int) -> str:
    match what:
        case "table":
            return f"nftables table {where}: {verb}"
        case "rules":
            return f"nftables table {where}: {count} rules of chain {name} {verb}"
        case "elements":
            return f"nftables table {where}: {count} members of set {name} {verb}"
    return f"nftables table {where}: {f'{what} {name}'.strip()} {verb}"


def _author(body: bytes) -> str:
    parts = dict(attributes(body))
    name = string(parts.get(_PROCESS_NAME, b""))
    return f"{name} (pid {int.from_bytes(parts.get(_PROCESS_ID, b''), 'big')})" if name else ""

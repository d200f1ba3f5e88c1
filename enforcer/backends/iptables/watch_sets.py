"""Polls our ipsets for changes by other programs, cheaply enough for once a second.

To count the members of a set the kernel walks all its buckets (net/netfilter/ipset/ip_set_hash_gen.h: ``mtype_head``),
1 ms for 100,000. So the headers, with the number of members, are read as often as their share of CPU time permits: each
second for small sets, every twenty seconds for 100,000 members. Whenever it is not the turn of the headers, some
members of each large set are tested, which shows a set that was flushed, swapped, or lost many of its members. All
members are listed still less often, and by each pass that finds nothing to change.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from enforcer.backends.iptables.blob import SetIndex
from enforcer.backends.iptables.ipset import CMD_LIST, CMD_TEST, FLAG_LIST_HEADER, SUBSYSTEM
from enforcer.backends.iptables.listed import LISTED, Listed, digest_of
from enforcer.backends.iptables.members import pack
from enforcer.backends.iptables.rules import SetType
from enforcer.backends.netfilter.names import is_our_set
from enforcer.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NET_BYTEORDER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attribute,
    attributes,
    be32,
    messages,
    netfilter_message,
    string,
    text,
)
from enforcer.kernel.netlink_conn import namespace_of
from enforcer.kernel.pace import Pace
from enforcer.model.errors import KernelError

_PROTOCOL, _SETNAME, _TYPENAME, _FLAGS, _DATA, _ADT, _INDEX = 1, 2, 3, 6, 7, 8, 11  # linux/netfilter/ipset/ip_set.h
_FAMILY, _HASHSIZE, _ELEMENTS, _REFERENCES, _MEMSIZE = 5, 18, 24, 25, 26
_VERSION = attribute(_PROTOCOL, bytes([7]))  # of the ipset protocol: the oldest with the index of a set
_RECEIVE_BYTES = 1 << 16
_LIST_HEADERS = _VERSION + be32(_FLAGS | NLA_F_NET_BYTEORDER, FLAG_LIST_HEADER)

_HEADER_SHARE, _LIST_SHARE = 1 / 10_000, 1 / 50_000
_SAMPLE = 32
_LARGE = 10_000  # members: below, the header costs no more than a sample


@dataclass(frozen=True)
class _Header:
    """The kernel's header of a set, without its number of references. ``storage``: what follows of its members and of
    the order in which they came.
    """

    version: int
    index: int
    members: int
    storage: tuple[bytes, ...]
    rest: tuple[object, ...]

    @classmethod
    def of(cls, found: Mapping[int, bytes]) -> _Header:
        data = dict(attributes(found.get(_DATA, b"")))
        members = int.from_bytes(data.pop(_ELEMENTS, b""), "big")
        data.pop(_REFERENCES, None)
        storage = tuple(data.pop(kind, b"") for kind in (_HASHSIZE, _MEMSIZE))
        version = 6 if found.get(_FAMILY) == bytes([socket.AF_INET6]) else 4
        index = int.from_bytes(found[_INDEX], "big")
        return cls(version, index, members, storage, (found.get(_TYPENAME), tuple(data.items())))

    @property
    def type(self) -> SetType:
        return SetType(string(self.rest[0] if isinstance(self.rest[0], bytes) else b""))


class WatchedSets:
    """Our sets in the network namespace in which it is created. Owns a socket: the caller closes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._namespace = namespace_of(self._socket)
        self._headers: Mapping[str, _Header] = {}
        self._known: dict[str, Listed] = {}  # what passes listed
        self._digests: dict[str, bytes] = {}  # of listings, least recently read first
        self._sample = b""  # a datagram that tests members of the large sets
        self._header_pace, self._list_pace = Pace(_HEADER_SHARE), Pace(_LIST_SHARE)

    def close(self) -> None:
        self._socket.close()

    def remember(self) -> None:
        """Records the present state as the desired one. Members of a large set that was changed count as known once
        the next pass has listed them.
        """
        self._headers = self._read_headers()
        self._known, self._digests, self._sample = {}, {}, b""
        self._follow_passes()
        small = {name for name, header in self._headers.items() if header.members < _LARGE}
        self._digests |= {name: self._digest(name) for name in small - self._digests.keys()}

    def index(self) -> SetIndex:
        """The indexes of our sets when their headers were last read."""
        return SetIndex({name: header.index for name, header in self._headers.items()})

    def _follow_passes(self) -> None:
        """Take what the last pass listed, also one that changed nothing, after which nothing is recorded."""
        known = {name: item for name in self._headers if (item := LISTED.recall(self._namespace, name))}
        if all(self._known.get(name) is item for name, item in known.items()):
            return
        self._known = known
        listed = {name: item.digest for name, item in known.items() if item.digest}
        self._digests = {name: item for name, item in self._digests.items() if name not in listed} | listed
        self._sample = _sample(known, self._headers)

    def losses(self, *, thorough: bool) -> list[str]:
        """Each change to our sets, reported once. ``thorough``: read all headers now, but list nothing."""
        self._follow_passes()
        if not (self._header_pace.is_due() or thorough or self._misses_some()):
            return []
        with self._header_pace.measured():
            before, self._headers = self._headers, self._read_headers()
        names = sorted(before.keys() | self._headers.keys())
        changed = [name for name in names if before.get(name) != self._headers.get(name)]
        found = [_loss(name, before.get(name), self._headers.get(name)) for name in changed]
        if thorough:
            return found
        return found + [_exchange(name) for name in self._exchanged(changed)]

    def _misses_some(self) -> bool:
        """Whether a member of the sample is missing."""
        if not self._sample:
            return False
        self._socket.send(self._sample)
        missing = False
        while True:
            for message in messages(self._socket.recv(_RECEIVE_BYTES)):
                missing |= bool(message.error)
                if message.sequence == 0:  # the last one; all others are answered only if they fail
                    return missing

    def _exchanged(self, known: Collection[str]) -> Iterator[str]:
        """Sets with other members, among as many sets as may be listed now. Sets ``known`` to differ are not listed."""
        for name in known:
            self._digests.pop(name, None)
        for name in list(self._digests):
            if not self._list_pace.is_due():
                return
            before = self._digests.pop(name)
            with self._list_pace.measured():
                self._digests[name] = self._digest(name)
            if self._digests[name] != before:
                yield name

    def _read_headers(self) -> dict[str, _Header]:
        """The kernel's header of each of our sets, without members."""
        listed = self._list(_LIST_HEADERS)
        found = {string(about.get(_SETNAME, b"")): about for about in listed}
        return {name: _Header.of(about) for name, about in found.items() if is_our_set(name)}

    def _digest(self, name: str) -> bytes:
        try:
            return digest_of(b"".join(about.get(_ADT, b"") for about in self._list(_VERSION + text(_SETNAME, name))))
        except KernelError as error:
            if error.errno != errno.ENOENT:  # destroyed just now
                raise
            return b""

    def _list(self, body: bytes) -> Iterator[dict[int, bytes]]:
        """The attributes of each message of the reply to a list request with these attributes."""
        kind = SUBSYSTEM | CMD_LIST
        self._socket.send(netfilter_message(kind, NLM_F_REQUEST | NLM_F_DUMP, 1, socket.AF_INET, body))
        while True:
            for message in messages(self._socket.recv(_RECEIVE_BYTES)):
                if message.ends:
                    if message.error:
                        raise KernelError("look at the ipsets", number=message.error)
                    return
                yield dict(attributes(message.attributes))


def _sample(sets: Mapping[str, Listed], headers: Mapping[str, _Header]) -> bytes:
    """A datagram that tests members of each large set, chosen at random; only its last message is always answered."""
    bodies: list[tuple[int, bytes]] = []
    for name, listed in sets.items():
        header, count = headers[name], len(listed.members)
        if count >= _LARGE:
            family = socket.AF_INET6 if header.version == 6 else socket.AF_INET
            chosen = listed.members[random.sample(range(count), _SAMPLE)]
            packed = b"".join(pack(chosen, header.version, header.type))
            step, named = len(packed) // _SAMPLE, _VERSION + text(_SETNAME, name)
            bodies += [(family, named + packed[at : at + step]) for at in range(0, len(packed), step)]
    last = len(bodies) - 1
    return b"".join(
        netfilter_message(
            SUBSYSTEM | CMD_TEST, NLM_F_REQUEST | (NLM_F_ACK if at == last else 0), int(at < last), family, body
        )
        for at, (family, body) in enumerate(bodies)
    )


def _loss(name: str, old: _Header | None, new: _Header | None) -> str:
    if new is None:
        return f"ipset {name} is gone, with {old.members if old else 0} members"
    if old is None:
        return f"ipset {name} was added"
    if old == replace(new, storage=old.storage):
        return _exchange(name)
    if old.members == new.members:
        return f"ipset {name} was changed or replaced; it has {new.members} members, as before"
    return f"ipset {name}: {new.members} members, {old.members} before"


def _exchange(name: str) -> str:
    return f"ipset {name}: other members, as many as before"

"""libiptc through ctypes: a handle is a snapshot of one table of legacy iptables. No logic.

libiptc (iptables ``libiptc/libiptc.c``) reads a whole table, changes it in memory, and replaces it with one
``setsockopt``. Its functions return 1 for success, or 0 with errno set; its own ``strerror`` explains the errno.

The libraries are loaded by their sonames, so the dynamic linker finds them. The kernel module must be loaded already
(:func:`enforcer.kernel.ip_tables.request_module`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

from enforcer.model.errors import HostError, KernelError

_SONAMES = {4: "libip4tc.so.2", 6: "libip6tc.so.2"}  # iptables 1.8.3 and newer
_PREFIX = {4: "iptc", 6: "ip6tc"}

_HANDLE = ctypes.c_void_p
_TEXT = ctypes.c_char_p
_INT = ctypes.c_int
_ENTRY = ctypes.c_void_p  # struct ipt_entry, struct ip6t_entry
NEXT_OFFSET = {4: 90, 6: 142}  # of next_offset in them (linux/netfilter_ipv4/ip_tables.h, ipv6/ip6_tables.h)


class _Counters(ctypes.Structure):
    """``struct xt_counters``: packets and bytes."""

    _fields_ = (("packets", ctypes.c_uint64), ("bytes", ctypes.c_uint64))


_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "init": ([_TEXT], _HANDLE),
    "free": ([_HANDLE], None),
    "commit": ([_HANDLE], _INT),
    "strerror": ([_INT], _TEXT),
    "first_chain": ([_HANDLE], _TEXT),
    "next_chain": ([_HANDLE], _TEXT),
    "builtin": ([_TEXT, _HANDLE], _INT),
    "create_chain": ([_TEXT, _HANDLE], _INT),
    "delete_chain": ([_TEXT, _HANDLE], _INT),
    "get_policy": ([_TEXT, ctypes.POINTER(_Counters), _HANDLE], _TEXT),
    "set_policy": ([_TEXT, _TEXT, ctypes.POINTER(_Counters), _HANDLE], _INT),
    "first_rule": ([_TEXT, _HANDLE], _ENTRY),
    "next_rule": ([_ENTRY, _HANDLE], _ENTRY),
    "get_target": ([_ENTRY, _HANDLE], _TEXT),
    "insert_entry": ([_TEXT, _ENTRY, ctypes.c_uint, _HANDLE], _INT),
    "delete_num_entry": ([_TEXT, ctypes.c_uint, _HANDLE], _INT),
}


class IptcError(KernelError):
    """libiptc or the kernel returned an error. ``errno`` is the number, ``reason`` libiptc's text."""

    def __init__(self, what: str, reason: str, number: int) -> None:
        super().__init__(f"{what}: {reason}")
        self.errno = number
        self.reason = reason


class TableSnapshot(Protocol):
    """A snapshot of one table as the reconciler uses it: :class:`Snapshot`, or a fake. All methods raise IptcError."""

    def close(self) -> None:
        """Discard changes that were not committed."""

    def chains(self) -> Iterator[str]:
        """The names of all chains, built-in ones first."""

    def is_builtin(self, chain: str) -> bool: ...

    def rules(self, chain: str) -> Iterator[tuple[bytes, str]]:
        """Each rule's bytes, and the name of its target."""

    def create_chain(self, chain: str) -> None: ...

    def delete_chain(self, chain: str) -> None:
        """Fails with EMLINK if a rule jumps to the chain, ENOTEMPTY if it has rules."""

    def insert(self, chain: str, position: int, blob: bytes) -> None:
        """Insert before the rule at ``position``, which counts from 0."""

    def delete(self, chain: str, position: int) -> None: ...

    def policy(self, chain: str) -> str:
        """What a built-in chain does with a packet that no rule decides on: ``ACCEPT`` or ``DROP``."""

    def keep_policy(self, chain: str) -> None:
        """Set a built-in chain's policy and counters to what they are."""

    def commit(self) -> None:
        """Fails with EAGAIN if the kernel's table now has a different number of rules than the snapshot had."""


class Snapshot:
    """A snapshot of a table in the calling thread's network namespace. The caller closes it. Raises IptcError."""

    def __init__(self, version: int, table: str) -> None:
        self._version = version
        self._functions = _functions(version)
        self._handle: int | None = self._functions["init"](table.encode())
        if not self._handle:
            raise self._error(f"open table {table}")

    def close(self) -> None:
        if self._handle:
            self._functions["free"](self._handle)
            self._handle = None

    def chains(self) -> Iterator[str]:
        name = self._call("first_chain")
        while name:
            yield name.decode()
            name = self._call("next_chain")

    def is_builtin(self, chain: str) -> bool:
        return bool(self._call("builtin", chain.encode()))

    def rules(self, chain: str) -> Iterator[tuple[bytes, str]]:
        """Each rule's bytes, and the name of its target."""
        entry = self._call("first_rule", chain.encode())
        while entry:
            size = ctypes.c_uint16.from_address(entry + NEXT_OFFSET[self._version]).value
            target = self._call("get_target", entry) or b""
            yield ctypes.string_at(entry, size), target.decode()
            entry = self._call("next_rule", entry)

    def create_chain(self, chain: str) -> None:
        self._change(f"create chain {chain}", "create_chain", chain.encode())

    def delete_chain(self, chain: str) -> None:
        self._change(f"delete chain {chain}", "delete_chain", chain.encode())

    def insert(self, chain: str, position: int, blob: bytes) -> None:
        """Insert before the rule at ``position``, which counts from 0."""
        self._change(f"insert a rule into {chain}", "insert_entry", chain.encode(), _aligned(blob), position)

    def delete(self, chain: str, position: int) -> None:
        self._change(f"delete rule {position} of {chain}", "delete_num_entry", chain.encode(), position)

    def policy(self, chain: str) -> str:
        """What a built-in chain does with a packet that no rule decides on: ``ACCEPT`` or ``DROP``."""
        found: bytes = self._call("get_policy", chain.encode(), ctypes.byref(_Counters())) or b""
        return found.decode()

    def keep_policy(self, chain: str) -> None:
        """Set a built-in chain's policy and counters to what they are."""
        counters = _Counters()
        policy = self._call("get_policy", chain.encode(), ctypes.byref(counters))
        self._change(f"keep the policy of {chain}", "set_policy", chain.encode(), policy, ctypes.byref(counters))

    def commit(self) -> None:
        self._change("commit", "commit")

    def _call(self, name: str, *arguments: object) -> Any:
        assert self._handle, "the snapshot is closed"
        return self._functions[name](*arguments, self._handle)

    def _change(self, what: str, name: str, *arguments: object) -> None:
        if self._call(name, *arguments) != 1:
            raise self._error(what)

    def _error(self, what: str) -> IptcError:
        number = ctypes.get_errno()
        said: bytes = self._functions["strerror"](number) or b""
        return IptcError(what, said.decode(errors="replace"), number)


def _aligned(blob: bytes) -> Any:
    """The bytes of a rule in aligned memory: libiptc reads lengths in them before it copies them."""
    words = (ctypes.c_uint64 * -(-len(blob) // 8))()
    ctypes.memmove(words, blob, len(blob))
    return words


@cache
def _functions(version: int) -> dict[str, Any]:
    """libiptc's functions for a family. Raises HostError with the name of the package if it is missing."""
    try:
        library = ctypes.CDLL(_SONAMES[version], use_errno=True)
    except OSError as error:
        package = _SONAMES[version].replace(".so.", "")
        raise HostError(
            f"{_SONAMES[version]} cannot be loaded; install the package iptables, or {package} (1.8.3 or newer)"
        ) from error
    functions = {}
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(library, f"{_PREFIX[version]}_{name}")
        function.argtypes, function.restype = arguments, result
        functions[name] = function
    return functions

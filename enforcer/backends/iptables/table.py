"""The door to the legacy tables: python-iptables' binding of libiptc, one handle for one snapshot.

libiptc reads a whole table, lets it be changed in memory, and replaces it in one system call; rules that were not
touched keep their counters. A handle belongs to the network namespace of the thread that opened it, and
python-iptables keeps handles in a class-wide cache. So each :class:`KernelTable` has a handle of its own, closed before
the call returns.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from enforcer.backends.iptables.blob import KernelRule
from enforcer.backends.iptables.rules import TableId
from enforcer.errors import HostError, KernelError, PrivilegeError, UnsupportedKernelError

_TABLE_NAMES = {4: "/proc/thread-self/net/ip_tables_names", 6: "/proc/thread-self/net/ip6_tables_names"}
_LOCK_PATH = "/run/xtables.lock"
_LOCK_TIMEOUT_S = 30.0
_LOCK_POLL_S = 0.02


class TableChangedError(KernelError):
    """Somebody else replaced the table between our snapshot and our commit. Take a new snapshot and try again."""


class KernelTable:
    """A snapshot of one table. Changes stay in memory until :meth:`commit`."""

    def __init__(self, table: TableId) -> None:
        self.id = table
        self._table = _open(table)

    @property
    def version(self) -> int:
        return self.id.version

    def close(self) -> None:
        self._table.close()

    def chain_names(self) -> list[str]:
        return [chain.name for chain in self._table.chains]

    def drops_by_policy(self, chain: str) -> bool:
        """Whether it is a built-in chain that drops what no rule decides on."""
        return bool(self._table.builtin_chain(chain)) and self._table.get_policy(chain)[0].name == "DROP"

    def rules(self, chain: str) -> list[KernelRule]:
        return list(self._rules(chain))

    def _rules(self, chain: str) -> Iterator[KernelRule]:
        entry = self._table.first_rule(chain)
        while entry:
            blob = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
            yield KernelRule(blob, (self._table.get_target(entry) or b"").decode())
            entry = self._table.next_rule(entry)

    def create_chain(self, chain: str) -> None:
        self._call(f"create chain {chain}", self._table.create_chain, chain)

    def delete_chain(self, chain: str) -> bool:
        """Deletes an empty chain; False if a rule still jumps to it."""
        try:
            self._table.delete_chain(chain)
        except _iptc().IPTCError:
            return False
        return True

    def insert(self, chain: str, position: int, blob: bytes) -> None:
        """Inserts before the rule at ``position``, which counts from 0; the length of the chain appends."""
        buffer = (ctypes.c_ubyte * len(blob)).from_buffer_copy(blob)
        self._call(f"insert a rule into {chain}", self._table.insert_entry, chain, buffer, position)

    def delete(self, chain: str, position: int) -> None:
        # python-iptables binds iptc_delete_num_entry but has no method for it.
        if self._table._iptc.iptc_delete_num_entry(chain.encode(), position, self._table._handle) != 1:
            raise KernelError(f"{self.id}: cannot delete rule {position} of {chain}")

    def commit(self) -> None:
        """Puts the changed table into the kernel, whole. Raises TableChangedError if the kernel's is a newer one."""
        self._keep_policy_counters()
        try:
            self._table.commit()
        except _iptc().IPTCError as error:
            # The kernel compares the number of rules it has with the number we read (xt_replace_table).
            changed = os.strerror(errno.EAGAIN) in str(error)
            kind = TableChangedError if changed else KernelError
            raise kind(f"{self.id}: the kernel refused the new rules: {_reason(error)}") from error

    def _keep_policy_counters(self) -> None:
        """libiptc (1.8.9: ``__iptcc_p_del_policy``) marks the counters of chain policies to be zeroed by any commit."""
        for chain in filter(self._table.builtin_chain, self.chain_names()):
            policy, counters = self._table.get_policy(chain)
            self._call(f"keep the policy of {chain}", self._table.set_policy, chain, policy, counters)

    def _call(self, what: str, function: Any, *arguments: object) -> None:
        try:
            function(*arguments)
        except _iptc().IPTCError as error:
            raise KernelError(f"{self.id}: cannot {what}: {_reason(error)}") from error


@contextmanager
def kernel_table(table: TableId) -> Iterator[KernelTable]:
    """A fresh snapshot of a table in the calling thread's network namespace."""
    snapshot = KernelTable(table)
    try:
        yield snapshot
    finally:
        snapshot.close()


def exists(table: TableId) -> bool:
    """Whether this namespace has the table yet. Opening one makes it, so who only looks asks first."""
    try:
        with open(_TABLE_NAMES[table.version], encoding="ascii") as names:
            return str(table.name) in names.read().split()
    except FileNotFoundError:
        return False  # ip_tables itself is not there
    except PermissionError as error:
        raise PrivilegeError("reading iptables needs CAP_NET_ADMIN; run as root") from error


@contextmanager
def xtables_lock() -> Iterator[None]:
    """Excludes iptables and everything else that takes its lock: reading and replacing a table is not one step."""
    path = os.environ.get("XTABLES_LOCKFILE", _LOCK_PATH)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"{path}: cannot open the lock iptables uses: {error.strerror}") from error
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise KernelError(f"{path}: another program held the lock for {_LOCK_TIMEOUT_S:.0f} s") from None
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _open(table: TableId) -> Any:
    module = _iptc()
    kind = module.Table if table.version == 4 else module.Table6
    snapshot = object.__new__(kind)  # kind(...) would answer from a cache filled in whatever namespace came first
    snapshot._handle = None  # close() looks at it, also where _init fails
    try:
        snapshot._init(str(table.name), False)
    except module.IPTCError as error:
        raise _open_error(table, error) from error
    return snapshot


def _open_error(table: TableId, error: Exception) -> HostError:
    reason = _reason(error)
    if "ermission denied" in reason or "not permitted" in reason:
        return PrivilegeError(
            f"reading the iptables {table.name} table needs CAP_NET_ADMIN and CAP_NET_RAW; run as root"
        )
    six = "6" * (table.version == 6)
    return UnsupportedKernelError(
        f"the kernel has no legacy {table.name} table for IPv{table.version} ({reason}); it needs "
        f"CONFIG_IP{six}_NF_{str(table.name).upper()} and the module ip{six}table_{table.name}"
    )


def _reason(error: Exception) -> str:
    """python-iptables formats the C library's text as the repr of bytes."""
    text = str(error).split(": ", 1)[-1]
    return text[2:-1] if text[:2] in ("b'", 'b"') else text


def _iptc() -> Any:
    """python-iptables, which loads libiptc and libxtables as it is imported."""
    try:
        import iptc
    except Exception as error:  # each missing library shows as another exception: AttributeError, OSError, XTablesError
        raise HostError(
            f"python-iptables cannot load libiptc or libxtables ({error}); install the Debian package 'iptables'"
        ) from error
    return iptc

"""The legacy tables through libiptc, with one handle for each snapshot.

Rules that are not changed keep their counters. A handle belongs to the network namespace of the thread that opened it.
Each :class:`KernelTable` has its own handle.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Protocol

from enforcer.backends.iptables.blob import KernelRule
from enforcer.backends.iptables.rules import TableId
from enforcer.kernel.ip_tables import MODULES, TABLE_NAMES, is_loaded, request_module
from enforcer.kernel.libiptc import IptcError, Snapshot, TableSnapshot
from enforcer.model.errors import RAN_OUT, HostError, KernelError, PrivilegeError, UnsupportedKernelError
from enforcer.system.log import event

_NAMES_BYTES = 4096  # of the five tables at most: the kernel returns them in one piece
_LOCK_PATH = "/run/xtables.lock"
_LOCK_TIMEOUT_S = 30.0
_LOCK_POLL_S = 0.02
_NO_ROOM = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class TableChangedError(KernelError):
    """Another program replaced the table between our snapshot and our commit. Retry with a new snapshot."""


class KernelTable:
    """A snapshot of one table. Changes stay in memory until :meth:`commit`."""

    def __init__(self, table: TableId, snapshot: TableSnapshot) -> None:
        self.id = table
        self._table = snapshot

    @property
    def version(self) -> int:
        return self.id.version

    def close(self) -> None:
        self._table.close()

    def chain_names(self) -> list[str]:
        return list(self._table.chains())

    def drops_by_policy(self, chain: str) -> bool:
        """Whether this is a built-in chain with policy DROP."""
        return self._table.is_builtin(chain) and self._table.policy(chain) == "DROP"

    def rules(self, chain: str) -> list[KernelRule]:
        return [KernelRule(blob, target) for blob, target in self._table.rules(chain)]

    def create_chain(self, chain: str) -> None:
        with self._named():
            self._table.create_chain(chain)

    def delete_chain(self, chain: str) -> bool:
        """Deletes an empty chain; False if a rule still jumps to it."""
        try:
            self._table.delete_chain(chain)
        except IptcError:
            return False
        return True

    def insert(self, chain: str, position: int, blob: bytes) -> None:
        """Inserts before the rule at ``position``, counted from 0. The length of the chain as position appends."""
        with self._named():
            self._table.insert(chain, position, blob)

    def delete(self, chain: str, position: int) -> None:
        with self._named():
            self._table.delete(chain, position)

    def commit(self) -> None:
        """Replaces the kernel's table. Raises TableChangedError if the table has changed since the snapshot."""
        self._keep_policy_counters()
        try:
            self._table.commit()
        except IptcError as error:
            # The kernel compares its number of rules with the number that we read (xt_replace_table).
            kind = TableChangedError if error.errno == errno.EAGAIN else KernelError
            raise kind(f"{self.id}: the kernel refused the new rules: {error.reason}") from error

    def _keep_policy_counters(self) -> None:
        """libiptc (1.8.9: ``__iptcc_p_del_policy``) would zero the counters of chain policies in every commit."""
        with self._named():
            for chain in filter(self._table.is_builtin, self.chain_names()):
                self._table.keep_policy(chain)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Adds the name of the table to errors."""
        try:
            yield
        except IptcError as error:
            raise KernelError(f"{self.id}: cannot {error}") from error


@contextmanager
def kernel_table(table: TableId) -> Iterator[KernelTable]:
    """A fresh snapshot of a table in the calling thread's network namespace."""
    request_module(table.version)
    try:
        snapshot = KernelTable(table, Snapshot(table.version, str(table.name)))
    except IptcError as error:
        raise _open_error(table, error) from error
    try:
        yield snapshot
    finally:
        snapshot.close()


def exists(table: TableId) -> bool:
    """Whether this namespace has the table yet. Opening a table creates it, so readers check first."""
    try:
        descriptor = os.open(TABLE_NAMES[table.version], os.O_RDONLY | os.O_CLOEXEC)  # each second: without a buffer
        try:
            return str(table.name).encode() in os.read(descriptor, _NAMES_BYTES).split()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return False  # ip_tables is not loaded
    except PermissionError as error:
        raise PrivilegeError("reading iptables needs CAP_NET_ADMIN; run as root") from error


class TableNames:
    """:func:`exists` for many times, in the network namespace in which each version was first asked for: the files stay
    open. The caller closes it.
    """

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}

    def have(self, table: TableId) -> bool:
        try:
            descriptor = self._descriptors.get(table.version)
            if descriptor is None:
                descriptor = os.open(TABLE_NAMES[table.version], os.O_RDONLY | os.O_CLOEXEC)
                self._descriptors[table.version] = descriptor
            return str(table.name).encode() in os.pread(descriptor, _NAMES_BYTES, 0).split()
        except OSError:  # ip_tables was unloaded, or was loaded anew since
            self.close()
            return exists(table)

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


@contextmanager
def xtables_lock() -> Iterator[None]:
    """Holds the lock of iptables, because reading and replacing a table is not atomic.

    If the lock file does not exist and cannot be created, other programs cannot use it either. Then raw is enforced
    without the lock, after a warning.
    """
    path = os.environ.get("XTABLES_LOCKFILE", _LOCK_PATH)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise HostError(f"{path}: cannot open the lock iptables uses: {error.strerror}") from error
        _warn_once(path, error.strerror)
        yield
        return
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


@cache
def _warn_once(path: str, problem: str) -> None:
    event(logging.WARNING, "cannot create the lock of iptables; continuing without it", lock=path, problem=problem)


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


class Tables(Protocol):
    """The legacy tables of one network namespace as the reconciler uses them: :class:`LegacyTables`, or a fake."""

    def exists(self, table: TableId) -> bool:
        """Whether the namespace has the table. Does not create it."""

    def lock(self) -> AbstractContextManager[None]:
        """Holds the lock of iptables (:func:`xtables_lock`)."""

    def open(self, table: TableId) -> AbstractContextManager[KernelTable]:
        """A fresh snapshot. Creates the table if it does not exist."""


class LegacyTables:
    """The :class:`Tables` of the calling thread's network namespace."""

    def exists(self, table: TableId) -> bool:
        return exists(table)

    def lock(self) -> AbstractContextManager[None]:
        return xtables_lock()

    def open(self, table: TableId) -> AbstractContextManager[KernelTable]:
        return kernel_table(table)


LEGACY = LegacyTables()


def _open_error(table: TableId, error: IptcError) -> HostError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return PrivilegeError(
            f"reading the iptables {table.name} table needs CAP_NET_ADMIN and CAP_NET_RAW; run as root"
        )
    if error.errno in RAN_OUT:
        return KernelError(f"reading the iptables {table.name} table", number=error.errno)
    six = "6" * (table.version == 6)
    if not is_loaded(table.version):
        module = MODULES[table.version]
        return UnsupportedKernelError(
            f"the kernel has no legacy tables for IPv{table.version}: {module} is not loaded, and this process may not "
            f"have it loaded; run 'modprobe {module}' (the kernel needs CONFIG_IP{six}_NF_IPTABLES)"
        )
    return UnsupportedKernelError(
        f"the kernel has no legacy {table.name} table for IPv{table.version} ({error.reason}); it needs "
        f"CONFIG_IP{six}_NF_{str(table.name).upper()} and the module ip{six}table_{table.name}"
    )

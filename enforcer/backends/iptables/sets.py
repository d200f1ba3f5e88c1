"""Brings ipsets to their wanted members, before and after the commit of the rules that refer to them.

Rules and sets cannot change in one step. A packet that both the old and the new plan drop is dropped at every step in
between, because before the commit a set only gets *stricter* and after it only *more lenient*: a set of Deny entries
grows before and shrinks after, a set of Allow or Pass entries shrinks before and grows after. Sets are created before
rules refer to them and destroyed afterwards. A set that cannot be kept (it has options, a member has options, it is too
small) is built under another name and swapped in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from enforcer.backends.iptables.blob import SetIndex
from enforcer.backends.iptables.ipset import IpSetsConn, SetBusyError, SetHeader
from enforcer.backends.iptables.listed import LISTED, Listed, digest_of
from enforcer.backends.iptables.members import members_in, wanted_members
from enforcer.backends.iptables.rules import SetSpec
from enforcer.backends.netfilter.members import Members, differences, intersection, union
from enforcer.backends.netfilter.names import is_our_set, scratch_name
from enforcer.backends.netfilter.settings import DEFAULT_MAX_SET_SIZE
from enforcer.model.errors import HostError

_NO_INDEX = 0xFFFF  # IPSET_INVALID_ID: the index of no set


@dataclass
class SetSync:
    """One pass over the sets of a namespace. ``dry_run``: only determine the changes. ``limit``: maxelem of a new set,
    unless it needs more while it has both its old and its new members.
    """

    sets: IpSetsConn
    dry_run: bool = False
    limit: int = DEFAULT_MAX_SET_SIZE
    changes: list[str] = field(default_factory=list)
    _later: list[Callable[[], None]] = field(default_factory=list)
    _listed: dict[str, SetHeader] | None = None  # until a set is created, swapped or destroyed

    def prepare(self, wanted: Iterable[SetSpec]) -> None:
        """Before the commit: creates missing sets, and makes each set as strict as its old and new members together."""
        headers = self._headers()
        for spec in wanted:
            members = wanted_members(spec)
            if spec.name in headers:
                self._update(spec, members, headers[spec.name])
            else:
                self.changes.append(f"ipset {spec.name}: created with {len(members)} members")
                self._build(spec.name, spec, members)

    def finish(self, keep: Iterable[str]) -> None:
        """After the commit: brings wanted sets to exactly their members and destroys our sets that are not in ``keep``.

        A set that a foreign rule refers to stays, because the kernel does not destroy it.
        """
        for change in self._later:
            change()
        for name in sorted(filter(is_our_set, self._headers().keys() - set(keep))):
            self._destroy(name)

    def index(self, wanted: Iterable[SetSpec] = ()) -> SetIndex:
        """The indexes of all sets. In a dry run, a wanted set that does not exist yet has the index of no set."""
        numbers = {name: header.index for name, header in self._headers().items()}
        missing = {spec.name: _NO_INDEX for spec in wanted} if self.dry_run else {}
        return SetIndex(missing | numbers)

    def _headers(self) -> dict[str, SetHeader]:
        """The headers of all sets. For them the kernel walks all buckets of each set, so they are read once."""
        if self._listed is None:
            self._listed = self.sets.headers()
        return self._listed

    def _update(self, spec: SetSpec, members: Members, header: SetHeader) -> None:
        if (header.type, header.version) != (spec.type, spec.version):
            raise HostError(
                f"ipset {spec.name} is of type {header.type} for IPv{header.version}, not {spec.type} for "
                f"IPv{spec.version}: another program created it; 'enforcer detach' removes it"
            )
        before = self._present(spec, members, header)
        self._forget(spec)
        if before is None:
            self._rebuild(spec, members, members)
            return
        present = before.members
        added, gone = differences(members, present)
        size = len(present) - len(gone) if spec.lenient else len(present) + len(added)
        if header.options or header.maxelem < max(size, len(members)):
            between = (intersection if spec.lenient else union)(members, present)
            self._rebuild(spec, members, between)
            before = replace(before, digest=None)  # listed in another order now
            added, gone = differences(members, between)
        elif spec.lenient:
            self._delete(spec, gone)
            gone = gone[:0]
        else:
            self._add(spec, added)
            added = added[:0]
        self._later.append(lambda: self._add(spec, added))
        self._later.append(lambda: self._delete(spec, gone))
        self._later.append(lambda: self._keep(spec, members, before))

    def _present(self, spec: SetSpec, wanted: Members, header: SetHeader) -> Listed | None:
        """The set as it is; None if it has members that we never write. It is listed unless its members are to change
        and are known (``listed``).
        """
        known = LISTED.recall(self.sets.namespace, spec.name)
        if known and known.may_be_in(header) and not np.array_equal(known.members, wanted):
            return known
        now_s, listing = time.monotonic(), self.sets.listing(spec.name, spec.version)
        digest = digest_of(listing)
        if known and known.digest == digest:
            return replace(known, index=header.index, at_s=now_s)
        found = members_in(listing, spec.version)
        return None if found is None else Listed(header.index, found, digest, now_s)

    def _keep(self, spec: SetSpec, members: Members, before: Listed) -> None:
        """Note the members for the next pass."""
        if not self.dry_run:
            digest = before.digest if np.array_equal(members, before.members) else None
            LISTED.keep(self.sets.namespace, spec.name, replace(before, members=members, digest=digest))

    def _forget(self, spec: SetSpec) -> None:
        if not self.dry_run:
            LISTED.forget(self.sets.namespace, spec.name)

    def _add(self, spec: SetSpec, members: Members) -> None:
        if len(members):
            self.changes.append(f"ipset {spec.name}: {len(members)} members added")
            if not self.dry_run:
                self.sets.add(spec.name, spec.version, members, spec.type)

    def _delete(self, spec: SetSpec, members: Members) -> None:
        if len(members):
            self.changes.append(f"ipset {spec.name}: {len(members)} members deleted")
            if not self.dry_run:
                self.sets.delete(spec.name, spec.version, members, spec.type)

    def _rebuild(self, spec: SetSpec, members: Members, between: Members) -> None:
        self.changes.append(f"ipset {spec.name}: rebuilt with {len(between)} members")
        if self.dry_run:
            return
        scratch = scratch_name(spec.name)
        if scratch in self._headers():
            self.sets.destroy(scratch)  # left by an interrupted pass
        self._build(scratch, spec, between, room=len(members))
        self.sets.swap(scratch, spec.name)
        self.sets.destroy(scratch)
        self._listed = None

    def _build(self, name: str, spec: SetSpec, members: Members, *, room: int = 0) -> None:
        if not self.dry_run:
            self._listed = None
            size = max(len(members), room)
            self.sets.create(name, spec.type, spec.version, size, limit=self.limit)
            self.sets.add(name, spec.version, members, spec.type)

    def _destroy(self, name: str) -> None:
        if not self.dry_run:
            self._listed = None
            LISTED.forget(self.sets.namespace, name)
            try:
                self.sets.destroy(name)
            except SetBusyError:
                return
        self.changes.append(f"ipset {name}: destroyed")

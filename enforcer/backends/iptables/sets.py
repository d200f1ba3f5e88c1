"""Brings ipsets to the members they should have, so that at no moment a listed prefix is missing.

Creation before reference, deletion after: :meth:`SetSync.prepare` runs before the rules are committed and only adds;
:meth:`SetSync.finish` runs afterwards and takes away. A set that cannot be brought about by adding (its options are
not ours, a member carries an option, it is too small) is built beside the old one and swapped in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from enforcer.backends.iptables.blob import SetIndex
from enforcer.backends.iptables.ipset import SET_TYPE, IpSets, SetBusyError, SetHeader
from enforcer.backends.iptables.members import Members, difference, members_of
from enforcer.backends.iptables.names import is_our_set, scratch_name
from enforcer.backends.iptables.rules import SetSpec
from enforcer.errors import HostError

_UNMADE_INDEX = 0xFFFF  # IPSET_INVALID_ID: no set of the kernel has it


@dataclass
class SetSync:
    """One pass over the sets of a namespace. ``dry_run``: finds the changes, makes none."""

    sets: IpSets
    dry_run: bool = False
    changes: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    _surplus: list[tuple[SetSpec, Members]] = field(default_factory=list)

    def prepare(self, wanted: Iterable[SetSpec]) -> None:
        """Every wanted set exists afterwards, with at least its members."""
        headers = self.sets.headers()
        for spec in wanted:
            members = members_of(spec.nets, spec.version)
            header = headers.get(spec.name)
            if header is None:
                self._create(spec, members)
            else:
                self._update(spec, members, header)

    def finish(self, keep: Iterable[str]) -> None:
        """Takes away surplus members, and our sets that are not to be kept. Call it when no rule needs them."""
        for spec, members in self._surplus:
            self.changes.append(f"ipset {spec.name}: {len(members)} members deleted")
            if not self.dry_run:
                self.sets.delete(spec.name, spec.version, members)
        for name in sorted(filter(is_our_set, self.sets.headers().keys() - set(keep))):
            self._destroy(name)

    def index(self, wanted: Iterable[SetSpec] = ()) -> SetIndex:
        """The numbers of all sets there are. In a dry run a set yet to be made has a number of none."""
        numbers = {name: header.index for name, header in self.sets.headers().items()}
        unmade = {spec.name: _UNMADE_INDEX for spec in wanted} if self.dry_run else {}
        return SetIndex(unmade | numbers)

    def _create(self, spec: SetSpec, members: Members) -> None:
        self.changes.append(f"ipset {spec.name}: created with {len(members)} members")
        if not self.dry_run:
            self._build(spec.name, spec, members)

    def _update(self, spec: SetSpec, members: Members, header: SetHeader) -> None:
        if (header.type, header.version) != (SET_TYPE, spec.version):
            raise HostError(
                f"ipset {spec.name} is of type {header.type} for IPv{header.version}, not {SET_TYPE} for "
                f"IPv{spec.version}: somebody else made it; 'enforcer detach' removes it"
            )
        present = self.sets.members(spec.name, spec.version)
        if present is None or header.options or header.maxelem < len(members):
            self._rebuild(spec, members)
            return
        missing, surplus = difference(members, present), difference(present, members)
        if len(present) + len(missing) > header.maxelem:
            self._rebuild(spec, members)  # old and new members together have no room
            return
        if len(missing):
            self.changes.append(f"ipset {spec.name}: {len(missing)} members added")
            if not self.dry_run:
                self.sets.add(spec.name, spec.version, missing)
        if len(surplus):
            self._surplus.append((spec, surplus))

    def _rebuild(self, spec: SetSpec, members: Members) -> None:
        self.changes.append(f"ipset {spec.name}: rebuilt with {len(members)} members")
        if self.dry_run:
            return
        scratch = scratch_name(spec.name)
        if scratch in self.sets.headers():
            self.sets.destroy(scratch)  # left behind by a pass that was cut short
        self._build(scratch, spec, members)
        self.sets.swap(scratch, spec.name)
        self.sets.destroy(scratch)

    def _build(self, name: str, spec: SetSpec, members: Members) -> None:
        self.sets.create(name, spec.version, len(members))
        self.sets.add(name, spec.version, members)

    def _destroy(self, name: str) -> None:
        if not self.dry_run:
            try:
                self.sets.destroy(name)
            except SetBusyError:
                self.refused[name] = "not destroyed: a rule that is not ours refers to it"
                return
        self.changes.append(f"ipset {name}: destroyed")

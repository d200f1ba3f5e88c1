"""Brings all interfaces of a plan to their wanted state: first the shared address tables, then each interface."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from enforcer.backends.base import ApplyResult
from enforcer.backends.rendered import Rendered
from enforcer.backends.xdp import addresses
from enforcer.backends.xdp.addresses import AddressTables
from enforcer.backends.xdp.apply import (
    AttachmentRefused,
    ForeignProgram,
    Wanted,
    check,
    is_kept,
    kernel_refusals,
    put_rows,
    reconcile,
)
from enforcer.backends.xdp.compile.contents import contents_of
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import XdpRows, address_rows, atoms, render
from enforcer.backends.xdp.offload import OffloadTable, TooManyLengthsError, render_offload
from enforcer.backends.xdp.state import generation
from enforcer.backends.xdp.state.generation import Contents
from enforcer.backends.xdp.state.layout import Pins, TablePins
from enforcer.backends.xdp.state.manifest import Manifest, Members
from enforcer.backends.xdp.state.read import read_all
from enforcer.backends.xdp.tables.classes import Classified, Classifier, Segments4, Segments6, TooManyClasses
from enforcer.backends.xdp.tables.delta import few_changes
from enforcer.kernel.bpf.conn import BpfConn
from enforcer.kernel.netns import current_inode
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Mode, Toolchain
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.resources import NOWHERE


@dataclass(frozen=True)
class _Target:
    """An interface that gets a policy: its present state, and the policy as bit vectors."""

    pins: Pins
    plan: InterfacePlan
    state: InterfaceState
    rows: XdpRows | OffloadTable

    @property
    def size(self) -> str:
        cidrs = sum(_length(nets) for nets in atoms(self.plan).values())
        return f"{_many(len(self.plan.xdp_entries), 'entry', 'entries')}, {_many(cidrs, 'CIDR', 'CIDRs')}"


@dataclass(frozen=True)
class XdpSettings:
    """The inputs that do not come from the plan."""

    ipv6: bool = True
    toolchain: Toolchain = Toolchain.LIBBPF
    dry_run: bool = False


@dataclass
class Computed:
    """What earlier passes computed. ``rows``: interface -> its last rendering. ``held``: the lists that the address
    tables held after the last pass, by atom, with the segments that they had then.
    """

    rows: dict[str, Rendered[XdpRows]] = field(default_factory=dict)
    classifier: Classifier = field(default_factory=Classifier)
    held: tuple[Segments4, Segments6, dict[str, Nets]] | None = None

    def lists_in(self, tables: Classified) -> dict[str, Nets] | None:
        """The lists that tables with this content hold, if they still have the content that a pass left."""
        if self.held is None or self.held[0] is not tables.segments4 or self.held[1] is not tables.segments6:
            return None
        return self.held[2]


@dataclass
class _Pass:
    """The state of one pass over all interfaces. ``targets`` read address tables; ``devices`` (offload) do not."""

    bpf: BpfConn
    pin_root: Path
    settings: XdpSettings
    computed: Computed = field(default_factory=Computed)
    targets: list[_Target] = field(default_factory=list)
    devices: list[_Target] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    ranges: dict[int, int] = field(default_factory=dict)

    @property
    def pins(self) -> TablePins:
        return TablePins.of(self.bpf, self.pin_root, current_inode())

    def wanted(self, target: _Target, tables: AddressTables | None, members: Members | None = None) -> Wanted:
        """The wanted state of an interface with these tables; None: tables that do not exist yet."""
        held = members or (tables.manifest.members if tables else {0: frozenset()})
        return _wanted(target, self.settings, held, tables)

    def reconcile(self, target: _Target, tables: AddressTables | None) -> None:
        try:
            wanted = self.wanted(target, tables)
            self.changes += reconcile(target.pins, wanted, tables, dry_run=self.settings.dry_run)
        except AttachmentRefused as error:
            self.refuse(target.state.name, error)

    def refuse(self, interface: str, error: Exception) -> None:
        self.refused[interface] = str(error)
        if isinstance(error, ForeignProgram):
            self.foreign.add(interface)


def converge(
    bpf: BpfConn,
    pin_root: Path,
    plans: Sequence[InterfacePlan],
    states: Iterable[InterfaceState],
    settings: XdpSettings,
    computed: Computed | None = None,
) -> ApplyResult:
    """Make every interface enforce its plan. Interfaces that cannot are in the result.

    ``states``: the present interfaces. ``computed`` is read and filled.
    """
    if not plans:
        return ApplyResult()
    work = _Pass(bpf, pin_root, settings, computed or Computed())
    _look(work, plans, {state.name: state for state in states})
    for target in work.devices:
        work.reconcile(target, None)
    try:
        with kernel_refusals():
            _converge(work)
    except (AttachmentRefused, TooManyClasses) as error:
        work.refused |= {target.state.name: str(error) for target in work.targets}
    return ApplyResult(tuple(work.changes), work.refused, frozenset(work.foreign), work.ranges)


def _look(work: _Pass, plans: Sequence[InterfacePlan], states: Mapping[str, InterfaceState]) -> None:
    """Look up the interfaces, and refuse those that cannot be enforced."""
    for plan in plans:
        pins, state = Pins.of(work.bpf, work.pin_root, plan.interface), states.get(plan.interface)
        try:
            if state is None:
                raise AttachmentRefused(f"there is no interface {plan.interface}")
            if not work.settings.dry_run:
                with kernel_refusals():
                    generation.settle(pins)
            check(pins, state, current_inode())
            if plan.mode is Mode.OFFLOAD:
                table = render_offload(plan, receiver=Receiver.of(state), ipv6=work.settings.ipv6)
                work.devices.append(_Target(pins, plan, state, table))
            else:
                work.targets.append(_Target(pins, plan, state, _rows_of(work, plan)))
        except (AttachmentRefused, TooManyLengthsError) as error:
            work.refuse(plan.interface, error)


def _rows_of(work: _Pass, plan: InterfacePlan) -> XdpRows:
    """The rows depend on everything but the members of sets."""
    kept, table, ipv6 = work.computed.rows.setdefault(plan.interface, Rendered()), plan.table, work.settings.ipv6
    ports = tuple(sorted(table.port_sets.items()))
    also = (plan.xdp_entries, table.failsafe_inbound, table.failsafe_outbound, ports, ipv6)
    return kept.of([], lambda: render(plan, ipv6=ipv6), also=also)


def _converge(work: _Pass) -> None:
    if not work.targets:
        return
    if not work.settings.dry_run:
        _settle(work)
    live = addresses.open_tables(work.pins)
    try:
        wanted = _wanted_atoms(work.targets)
        if live and _change_few(work, live, wanted):
            _keep(work, live.classified, wanted)
            return
        classified = work.computed.classifier.classify(wanted, live.numbers if live else None)
        _keep(work, classified, wanted)
        if live and _same_classes(live.classified, classified):
            _keep(work, live.classified, wanted)
            for target in work.targets:
                work.reconcile(target, live)
        elif live and _change_in_place(work, live, classified):
            for target in work.targets:
                work.reconcile(target, live)
        elif work.settings.dry_run:
            for target in work.targets:
                work.reconcile(target, None)
        else:
            _rebuild(work, classified)
    finally:
        if live:
            live.close()


def _rebuild(work: _Pass, classified: Classified) -> None:
    """Move every interface to new tables. The tables replace the old ones if any interface moved, else they are
    removed.

    If this is interrupted, the next pass completes or discards it (:func:`_settle`): an interface may already have
    moved although its pins do not say so.
    """
    with addresses.build_tables(work.pins, classified) as built:
        for target in work.targets:
            work.reconcile(target, built)
    _settle(work)


def _settle(work: _Pass) -> None:
    used = {installed.manifest.tables for _, installed in read_all(work.bpf, work.pin_root)}
    addresses.settle_tables(work.pins, used)


def _wanted_atoms(targets: Iterable[_Target]) -> dict[str, Nets]:
    found: dict[str, Nets] = {}
    for target in targets:
        found |= atoms(target.plan)
    return found


def _same_classes(now: Classified, then: Classified) -> bool:
    """Whether two classifications give every address the same class."""
    pairs = (
        (now.segments4.start, then.segments4.start),
        (now.segments4.cls, then.segments4.cls),
        (now.segments6.high, then.segments6.high),
        (now.segments6.low, then.segments6.low),
        (now.segments6.cls, then.segments6.cls),
    )
    return all(np.array_equal(a, b) for a, b in pairs)


def _keep(work: _Pass, tables: Classified, wanted: dict[str, Nets]) -> None:
    """Note what tables with this content hold."""
    classes = {4: tables.segments4.cls, 6: tables.segments6.cls}
    work.ranges = {version: int(np.count_nonzero(found)) for version, found in classes.items()}
    work.computed.held = (tables.segments4, tables.segments6, wanted)


def _change_few(work: _Pass, live: AddressTables, wanted: dict[str, Nets]) -> bool:
    """Like :func:`_change_in_place`, of a few CIDRs and without classifying all addresses; that is what the next pass
    does, which checks this change. False if that is not possible, or nothing differs.
    """
    held = work.computed.lists_in(live.classified)
    changes = few_changes(held, wanted) if held is not None and not work.settings.dry_run else None
    if not changes or not _are_kept(work, live):
        return False
    changed = live.change_few(work.pins, changes, _announcing(work))
    if changed:
        _note_change(work)
    return changed is not None


def _change_in_place(work: _Pass, live: AddressTables, classified: Classified) -> bool:
    """Change the tables while programs run, if nothing else differs; False if that is not possible."""
    if max(classified.members) >= live.manifest.capacity or not _are_kept(work, live):
        return False
    if not work.settings.dry_run and not live.change(work.pins, classified, _announcing(work)):
        return False
    _note_change(work)
    return True


def _are_kept(work: _Pass, live: AddressTables) -> bool:
    """Whether nothing but the content of the tables is to be changed."""
    return all(is_kept(target.pins, work.wanted(target, live)) for target in work.targets)


def _announcing(work: _Pass) -> Callable[[int, frozenset[str]], None]:
    """What writes the rows of a new class to all interfaces."""

    def announce(number: int, members: frozenset[str]) -> None:
        for target in work.targets:
            put_rows(target.pins, number, address_rows(target.plan, {number: members}, ipv6=work.settings.ipv6))

    return announce


def _note_change(work: _Pass) -> None:
    work.changes += [f"{target.state.name}: address lists changed in place ({target.size})" for target in work.targets]


def _wanted(target: _Target, settings: XdpSettings, members: Members, tables: AddressTables | None) -> Wanted:
    plan, rows, bpf = target.plan, target.rows, target.pins.bpf
    assert plan.mode is not None
    contents: Contents | OffloadTable
    if isinstance(rows, OffloadTable):
        contents, names, policy, program = rows, rows.entries, _digest(sorted(rows.maps.items())), bpf.offload_digest()
    else:
        contents = contents_of(
            plan,
            rows,
            members,
            tables.manifest.capacity if tables else 1,
            receiver=Receiver.of(target.state),
            ipv6=settings.ipv6,
        )
        names, policy, program = rows.names, _policy_digest(plan, settings), bpf.xdp_digest(settings.toolchain)
    manifest = Manifest(
        interface=target.state.name,
        namespace=current_inode(),
        mode=plan.mode,
        program=program,
        policy=policy,
        tables=tables.id if tables else 0,
        receiver=str(Receiver.of(target.state)),
        entries=names,
    )
    return Wanted(target.state, plan.mode, contents, manifest, settings.toolchain, frozenset(members), target.size)


def _policy_digest(plan: InterfacePlan, settings: XdpSettings) -> str:
    """A digest of everything that decides on packets, except the members of sets. The positions of entries in their
    files are not part of it.
    """
    entries = [replace(entry, position=NOWHERE) for entry in plan.xdp_entries]
    table = plan.table
    ports = sorted(table.port_sets.items())
    return _digest((entries, table.failsafe_inbound, table.failsafe_outbound, ports, settings.ipv6))


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _length(nets: Nets) -> int:
    return len(nets.net4) + len(nets.len6)


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"

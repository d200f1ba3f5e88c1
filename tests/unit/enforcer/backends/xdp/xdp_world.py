"""The reconciler of XDP on a fake kernel."""

from __future__ import annotations

import shutil
import struct
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import numpy as np

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.compile.contents import contents_of
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import atoms, render
from enforcer.backends.xdp.state.generation import Contents, Elements
from enforcer.backends.xdp.state.layout import MAPS, TABLE_PINS, TABLES, Pins, TablePins, generation
from enforcer.backends.xdp.tables.classes import Segments4, Segments6
from enforcer.backends.xdp.tables.forest6 import NODE6
from enforcer.backends.xdp.tables.image4 import holds4, read4
from enforcer.backends.xdp.tables.read6 import read6
from enforcer.kernel.netns import current_inode
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Mode
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.planning.xdp_run import XdpRun
from tests.support.fakes.bpf import FakeBpf
from tests.support.fakes.bpf_files import files_noted
from tests.support.fakes.bpf_kernel import CPUS, FakeProgram
from tests.support.fakes.bpf_maps import FakeMap
from tests.support.fakes.bpf_objects import XDP_DECLARED
from tests.support.fakes.calls import Calls
from tests.support.reconcile import Met, World, remembering
from tests.support.ruletables import ADDRESSES, Packet
from tests.unit.enforcer.backends.xdp_twin import Twin

Content = bytes | tuple[tuple[bytes, bytes], ...]
Constants = tuple[tuple[str, int], ...]
Maps = tuple[tuple[str, Content], ...]

_KINDS: tuple[tuple[int, tuple[int, int] | None, tuple[int, int] | None], ...] = (
    *((protocol, (1, 22), None) for protocol in (6, 17, 132)),
    (6, (53, 65535), None),
    (17, (256, 53), None),
    (17, None, None),  # a later fragment
    (47, None, None),
)
PACKETS = tuple(
    Packet(source, destination, *kind)
    for version, icmp in ((4, 1), (6, 58))
    for source in ADDRESSES[version]
    for destination in ADDRESSES[version][:2]
    for kind in (*_KINDS, (icmp, None, (8, 0)), (icmp, None, (3, 1)))
)


@dataclass(frozen=True)
class Program:
    """A program's constants, and the numbers of the maps it reads."""

    constants: Mapping[str, int]
    maps: Mapping[str, int]


@dataclass(frozen=True)
class State:
    """``attached``: by interface, the mode and the number of its program."""

    attached: Mapping[str, tuple[Mode, int]]
    programs: Mapping[int, Program]
    maps: Mapping[int, Content]
    pins: Mapping[str, int]


def early(plan: Plan, mode: Mode = Mode.NATIVE) -> Plan:
    """All interfaces have XDP, which holds as many entries as it can."""
    return replace(
        plan, interfaces=tuple(replace(item, mode=mode, held=XdpRun(item.table).held()) for item in plan.interfaces)
    )


def served(plan: Plan) -> dict[str, InterfacePlan]:
    return {item.interface: item for item in plan.interfaces if item.mode and item.xdp_entries}


# In memory, as bpffs. Made before the test processes are forked: what they leave goes with it.
_ROOT = TemporaryDirectory(prefix="enf-fake-", dir="/dev/shm")


def _directory() -> Path:
    return Path(mkdtemp(dir=_ROOT.name))


@dataclass
class XdpWorld(World):
    """``refused``: the errors of the last pass, by interface."""

    fake: FakeBpf = field(default_factory=lambda: FakeBpf(_directory()))
    refused: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.fake.root)

    def copy(self) -> XdpWorld:
        return XdpWorld(self.fake.copy(_directory()))

    @property
    def calls(self) -> Calls:  # type: ignore[override]  # a property of the fake
        return self.fake.calls

    @property
    def backend(self) -> XdpBackend:
        """The backend of an agent that has just started."""
        return XdpBackend(self.fake.pins, bpf=self.fake)

    def apply(self, plan: Plan) -> list[str]:
        self.fake.killed = False
        self.fake.forget()
        with files_noted(self.fake):
            result = self.backend.apply(plan)
            self.refused = result.refused
            return [*result.changes, *self.backend.release(plan)]

    def count(self, name: str, packets: int) -> None:
        """Simulate that an interface's program drops that many packets by each of its bits, on each CPU."""
        program = next(link.program for link in self.fake.links() if self.fake.devices[name] == link.ifindex)
        counters = program.maps["entry_counters"]
        for at in range(counters.max_entries):
            counters.update(struct.pack("=I", at), struct.pack("=2Q", packets, 60 * packets) * CPUS, 0)

    def counts(self) -> dict[tuple[str, str], int]:
        """The packets that each entry has dropped on each interface."""
        return {(item.interface, item.entry): item.packets for item in self.backend.counters()}

    def state(self) -> State:
        pinned = self.fake.pinned()
        alive = self.fake.alive(pinned=pinned)
        attached = {item.name: (x.mode, x.prog_id) for item in self.fake.interfaces(alive) for x in item.xdp}
        programs = {
            item.id: Program(dict(item.constants), {name: found.id for name, found in item.maps.items()})
            for item in alive
            if isinstance(item, FakeProgram)
        }
        maps = {item.id: item.content() for item in alive if isinstance(item, FakeMap)}
        return State(attached, programs, maps, {path: item.id for path, item in pinned.items()})

    def everything(self) -> Hashable:
        state = self.state()
        programs = (
            (number, tuple(sorted(item.constants.items())), tuple(sorted(item.maps.items())))
            for number, item in sorted(state.programs.items())
        )
        rest = (tuple(sorted(each.items())) for each in (state.attached, state.maps, state.pins))
        return *programs, *rest, *sorted(self.fake.tree()[0])

    def holds(self, plan: Plan) -> bool:
        """Each interface is attached and drops what it should; exactly the expected objects are pinned."""
        wanted, state = served(plan), self.state()
        return (
            not self.refused
            and {name: mode for name, (mode, _) in state.attached.items()}
            == {name: item.mode for name, item in wanted.items()}
            and self.dropped(state, state) == _wanted(plan, None)
            and {path for path in self.fake.pins.rglob("*") if not path.is_dir()} == self._pins(plan)
            and not [path for path in self.fake.pins.rglob("*") if path.is_dir() and not any(path.iterdir())]
            and self.fake.alive() == self.fake.alive(held=False)
        )

    def _pins(self, plan: Plan) -> set[Path]:
        found = set()
        for name, item in served(plan).items():
            assert item.mode
            pins = Pins.of(self.fake, self.fake.pins, name)
            found |= {pins.link, *(pins.directory / each for each in generation(item.mode))}
            found |= {TablePins.of(self.fake, self.fake.pins, current_inode()).directory / each for each in TABLE_PINS}
        return found

    def dropped(self, rules: State, sets: State, among: Met | None = None) -> Met:
        found: Met = frozenset().union(*(_dropped(*each) for each in self.value(rules, sets)))
        return found if among is None else found & among

    def value(self, rules: State, sets: State) -> tuple[tuple[str, Constants, Maps], ...]:
        """Of each attached program its interface, its constants and what is in its maps."""
        found = []
        for name, (_, number) in sorted(rules.attached.items()):
            program = rules.programs[number]
            maps = tuple(
                (each, sets.maps.get(program.maps[each], rules.maps[program.maps[each]]))
                for each in (*TABLES, *MAPS.values())
            )
            found.append((name, tuple(sorted(program.constants.items())), maps))
        return tuple(found)


@lru_cache(maxsize=256)
def _dropped(interface: str, constants: Constants, maps: Maps) -> Met:
    """The packets that a program with these maps drops on an interface."""
    content = dict(maps)
    data = {name: found for name, found in maps if isinstance(found, bytes)}
    arrays = {
        pinned: Elements(XDP_DECLARED[name][2], data[name])
        for pinned, name in MAPS.items()
        if name in data and pinned != "counters"
    }
    named = dict(content["named"])  # type: ignore[arg-type]  # checked when it runs
    _, key, value, *_ = XDP_DECLARED["named"]
    hashes = {"named": (Elements(key, b"".join(named)), Elements(value, b"".join(named.values())))}
    twin = Twin(Contents(dict(constants), arrays, hashes, 0))
    words = {name: np.frombuffer(data[name], np.uint32) for name in TABLES if name != "nodes6"}
    ranges = (
        read4(words["root4"], words["lists4"]),
        read6(words["root6"], np.frombuffer(data["nodes6"], NODE6), words["buckets6"], words["lists6"]),
    )
    assert holds4(words["sieve4"], ranges[0])
    return frozenset(
        (packet, interface)
        for packet in PACKETS
        if twin.dropped_by(packet, _class(ranges, packet.source), _class(ranges, packet.destination)) is not None
    )


def _class(ranges: tuple[Segments4, Segments6], address: IPAddress) -> int:
    if address.version == 4:
        at = int(np.searchsorted(ranges[0].start, int(address), "right")) - 1
        return int(ranges[0].cls[at])
    high, low = ranges[1].high.tolist(), ranges[1].low.tolist()
    at = max(n for n in range(len(high)) if high[n] << 64 | low[n] <= int(address))
    return int(ranges[1].cls[at])


def _dropped_by(plan: InterfacePlan) -> set[Packet]:
    """The packets that the program of an interface drops, as it is compiled."""
    addresses = {item for packet in PACKETS for item in (packet.source, packet.destination)}
    of = {item: frozenset(name for name, nets in atoms(plan).items() if nets.contains(item)) for item in addresses}
    classes = [frozenset[str](), *(set(of.values()) - {frozenset()})]
    contents = contents_of(
        plan, render(plan, ipv6=True), dict(enumerate(classes)), len(classes), receiver=Receiver(bytes(6)), ipv6=True
    )
    twin, number = Twin(contents), {item: classes.index(members) for item, members in of.items()}
    return {
        packet
        for packet in PACKETS
        if twin.dropped_by(packet, number[packet.source], number[packet.destination]) is not None
    }


@remembering
def _wanted(plan: Plan, _: None) -> Met:
    return {(packet, name) for name, item in served(plan).items() for packet in _dropped_by(item)}

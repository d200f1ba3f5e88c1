"""The content of a scenario file as values; :mod:`dossim.scenario.load` creates them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from dossim.model.disposition import Fate
from dossim.model.host import IPInterface, Listener
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.model.errors import Position
from enforcer.model.nets import IPAddress, IPNetwork
from enforcer.model.vocabulary import CtState, Stage, Word
from enforcer.policy.resources import NOWHERE, PortRange, Resources


class Generator(Word):
    """The kinds of traffic that can be generated, described in :mod:`dossim.scenario.generate`."""

    SYN_FLOOD = "syn-flood"
    UDP_FLOOD = "udp-flood"
    UDP_REFLECTION = "udp-reflection"
    ICMP_FLOOD = "icmp-flood"
    TCP_HANDSHAKES = "tcp-handshakes"
    TCP_FLAGS = "tcp-flags"
    FRAGMENTS = "fragments"
    DNS_QUERIES = "dns-queries"
    ARP = "arp"
    SCAPY = "scapy"


class LeaveOut(Word):
    """Which fragment of every datagram is not sent."""

    FIRST = "first"
    LAST = "last"


Ports = tuple[PortRange, ...]


@dataclass(frozen=True)
class Parameters:
    """The parameters of a generator. The JSON Schema states which fields a generator accepts, and their defaults.

    ``size`` is the payload in bytes; ``vlan`` are tags from the outside in; ``destination`` None is the host's first
    address of each source's family. The same parameters and seed give the same frames.
    """

    count: int = 1
    sources: tuple[IPNetwork, ...] = (ip_network("198.51.100.0/24"),)
    destination: IPAddress | None = None
    sport: Ports = ()
    dport: Ports = ()
    size: int | None = None
    flags: tuple[str, ...] = ()
    mtu: int = 1500
    leave_out: LeaveOut | None = None
    query: str = "example.com"
    packet: str = ""
    vlan: tuple[int, ...] = ()
    ttl: int = 64
    seed: int = 0


@dataclass(frozen=True)
class CaptureTraffic:
    """``max_size`` in bytes, unpacked; ``skip_unknown`` leaves out packets of unsupported link types."""

    label: str
    path: Path
    position: Position = NOWHERE
    max_size: int | None = None
    skip_unknown: bool = False


@dataclass(frozen=True)
class GeneratedTraffic:
    label: str
    generator: Generator
    parameters: Parameters = Parameters()
    position: Position = NOWHERE


Traffic = CaptureTraffic | GeneratedTraffic


@dataclass(frozen=True)
class Bounds:
    """Between ``at_least`` and ``at_most``, both included; None is no bound."""

    at_least: float | None = None
    at_most: float | None = None

    def hold(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        if self.at_least == self.at_most:
            return f"{self.at_least:,g}"
        ends = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{word} {value:,g}" for word, value in ends if value is not None)


_SHARES = {Bounds(1.0, 1.0): "all", Bounds(0.0, 0.0): "none"}


@dataclass(frozen=True)
class PacketExpectation:
    """A share of the packets with this label (None: of all) ends with this fate, and where."""

    fate: Fate
    label: str | None = None
    stage: Stage | None = None
    at_or_before: Stage | None = None
    share: Bounds = Bounds(1.0, 1.0)
    modes: tuple[ModeChoice, ...] = ()
    position: Position = NOWHERE

    def __str__(self) -> str:
        where = f" at {self.stage}" if self.stage else f" at or before {self.at_or_before}" if self.at_or_before else ""
        share = _SHARES.get(self.share) or f"a share of {self.share}"
        return f"{self.label or 'all packets'}: {share} {self.fate}{where}"


@dataclass(frozen=True)
class ConntrackExpectation:
    """The number of tracked connections at the end of the replay. Only a drill can evaluate it."""

    entries: Bounds
    modes: tuple[ModeChoice, ...] = ()
    position: Position = NOWHERE

    def __str__(self) -> str:
        return f"conntrack entries: {self.entries}"


@dataclass(frozen=True)
class ConntrackTableExpectation:
    """What conntrack did during the replay, and what it tracks at the end. None: nothing is expected of that count.

    ``states``: packets by the state that conntrack gave them; ``entries`` at the end; ``early_drop``: entries evicted
    to make room; ``dropped``: packets dropped because there was no room. Only a drill can evaluate it.
    """

    states: Mapping[CtState, Bounds] = field(default_factory=dict)
    entries: Bounds | None = None
    early_drop: Bounds | None = None
    dropped: Bounds | None = None
    modes: tuple[ModeChoice, ...] = ()
    position: Position = NOWHERE

    def __str__(self) -> str:
        counts = (("entries", self.entries), ("early-drop", self.early_drop), ("dropped", self.dropped))
        parts = [f"{state} {bounds}" for state, bounds in self.states.items()]
        parts += [f"{name} {bounds}" for name, bounds in counts if bounds is not None]
        return f"conntrack: {', '.join(parts)}"


@dataclass(frozen=True)
class EntryExpectation:
    """How many packets an entry drops."""

    entry: str
    packets: Bounds
    modes: tuple[ModeChoice, ...] = ()
    position: Position = NOWHERE

    def __str__(self) -> str:
        return f"{self.entry} drops {self.packets} packet{'' if self.packets == Bounds(1, 1) else 's'}"


Expectation = PacketExpectation | ConntrackExpectation | ConntrackTableExpectation | EntryExpectation


@dataclass(frozen=True)
class HostDescription:
    """The host as far as the file describes it; the rest comes from the policy (``situation_for``)."""

    node: str | None = None
    interface: str | None = None
    addresses: tuple[IPInterface, ...] = ()
    forward: bool = False
    routes: tuple[IPNetwork, ...] = ()
    listen: tuple[Listener, ...] = ()
    rp_filter: int = 0
    mtu: int = 1500


@dataclass(frozen=True)
class Scenario:
    """One scenario file. Each of ``modes`` is one item to run; ``policy`` names the files of the resources.
    ``tracked``: whether policy after conntrack is enforced.
    """

    name: str
    path: Path
    resources: Resources
    traffic: tuple[Traffic, ...]
    description: str = ""
    policy: tuple[str, ...] = ()
    host: HostDescription = HostDescription()
    modes: tuple[ModeChoice, ...] = (ModeChoice.AUTO,)
    expect: tuple[Expectation, ...] = field(default=())
    slow: bool = False
    tracked: TrackedChoice = TrackedChoice.MODEL

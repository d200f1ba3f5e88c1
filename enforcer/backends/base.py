"""The interface of a backend: everything that the enforcer knows of one, and that a backend has to implement.

A driver acts in the network namespace of the calling thread and changes only its own objects. The only state it keeps
in the process is what one pass rendered: after a crash or an upgrade, a new process reads everything from the kernel.
On a host without the kernel features of a backend, its methods that read or remove find nothing and raise nothing.

Every backend implements :class:`BackendDriver`. A backend that enforces in raw also implements :class:`RawDriver`, XDP
:class:`ModeDriver`, because the kernel can reject its modes. :mod:`enforcer.backends.registry` lists them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from enforcer.kernel.bpf.bpffs import PIN_ROOT
from enforcer.model.facts import HostRules, Probe
from enforcer.model.vocabulary import Backend, Stage, Toolchain
from enforcer.planning.plan import Plan
from enforcer.policy.resources import FelixConfiguration


@dataclass(frozen=True)
class Setup:
    """What a driver is created from. Each driver reads its own settings from ``felix``; ``pin_root`` and ``toolchain``
    are for XDP.
    """

    felix: FelixConfiguration = field(default_factory=lambda: FelixConfiguration("default"))
    pin_root: Path = PIN_ROOT
    toolchain: Toolchain = Toolchain.LIBBPF


@dataclass(frozen=True)
class EntryCount:
    """How many packets and bytes one entry has matched at one stage of one interface since it was installed there.

    ``cpus``: (packets, bytes) of each CPU, indexed by CPU number, since the current program was loaded; empty at stages
    without per-CPU counters.
    """

    interface: str
    entry: str
    stage: Stage
    packets: int
    bytes: int
    cpus: tuple[tuple[int, int], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ApplyResult:
    """``changes``: one sentence for each change; empty if nothing had to change.

    ``refused``: interface -> why it is not enforced as planned: the kernel refused, or a foreign program is attached.
    All other interfaces are enforced as planned. ``foreign``: the refused interfaces that have a foreign program; this
    does not mean that they lack the mode. ``ranges``: how many ranges of addresses are in any list, by IP version, for
    a backend that holds lists as ranges.
    """

    changes: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    foreign: frozenset[str] = frozenset()
    ranges: Mapping[int, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Fill:
    """How full a set is, in members. ``limit`` None: bounded by memory only. ``holder``: the name of the pinned map,
    ipset or nftables set.
    """

    holder: str
    stage: Stage
    used: int
    limit: int | None


@dataclass(frozen=True)
class Holding:
    """What one backend holds for one interface: the names of its entries in evaluation order, and how full sets are.

    ``attached_to``: the current name of the interface that the program is attached to; "" for backends that match on
    interface names.
    ``tracked``: the stages after conntrack that it enforces at as well; ``stage`` is the earliest of all.
    """

    stage: Stage
    entries: tuple[str, ...] = ()
    fills: tuple[Fill, ...] = ()
    attached_to: str = ""
    tracked: tuple[Stage, ...] = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages that it enforces at, each once."""
        return tuple(dict.fromkeys((self.stage, *self.tracked)))


@dataclass(frozen=True)
class OthersRules:
    """How many foreign rules a netfilter backend has, and whether it has the chains of Kubernetes.

    ``felix``: a chain of Felix, if there is one, and where it is.
    """

    count: int = 0
    kubernetes: bool = False
    felix: str = ""


@dataclass(frozen=True)
class Loss:
    """``what``: one sentence on what another program removed or changed. ``by``: that program, if known.

    ``what`` is empty if the kernel lost notifications (socket buffer overrun): the state must be read and compared.
    """

    what: str
    by: str = ""


class Watch(Protocol):
    """Detects changes by other programs to what a backend holds, in the network namespace it was created in."""

    def fileno(self) -> int:
        """A descriptor that is readable when there may be losses; -1 if :meth:`losses` must be polled every second."""

    def begin(self) -> bool:
        """The plan uses the backend: start. True if there is no state to compare with yet."""

    def pause(self) -> None:
        """The plan no longer uses the backend: stop, because reading an unused part of the kernel could load it."""

    def remember(self) -> Iterable[Loss]:
        """Record the present state as the desired one. Returns the losses found, and repaired, while doing so."""

    def losses(self, *, thorough: bool = False) -> Iterable[Loss]:
        """What has changed since; each loss is reported once. ``thorough``: include expensive checks."""

    def close(self) -> None: ...


class BackendDriver(Protocol):
    """The methods of every backend. Only :meth:`counters` dumps counters."""

    @property
    def name(self) -> Backend: ...

    @property
    def stage(self) -> Stage:
        """The earliest stage at which it enforces."""

    @property
    def watched(self) -> str:
        """The part of the kernel that its watch observes. Backends with the same part share a watch."""

    def probe(self) -> Probe:
        """Whether this host has what the backend needs. NO if a part is missing, UNKNOWN if a privilege is."""

    def serves(self, plan: Plan) -> bool:
        """Whether the plan has anything for this backend."""

    def check(self, plan: Plan) -> None:
        """Raises UnsupportedRuleError naming every entry it cannot express; changes nothing.

        Keeps what it rendered, so that :meth:`apply` does not render the same tables again.
        """

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Make the kernel enforce exactly this plan. Applying it again changes nothing.

        A packet that both the old and the new plan drop is dropped at every moment in between. ``dry_run``: return the
        same sentences, change nothing.
        """

    def warnings(self, plan: Plan, rules: HostRules) -> Iterable[str]:
        """Probably unintended effects of an applied plan on a host with these foreign rules, one sentence each."""

    def counters(self) -> tuple[EntryCount, ...]:
        """One count for each enforced entry, in evaluation order per interface."""

    def interfaces(self) -> Mapping[str, Stage]:
        """The interfaces for which it holds anything, with the stage."""

    def status(self) -> Mapping[str, Holding]:
        """What it holds for each of these interfaces."""

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Remove everything of ours from these interfaces (None: from all). Returns one sentence for each removal."""

    def watch(self) -> Watch:
        """A new watch. The caller closes it."""


class RawDriver(BackendDriver, Protocol):
    """A backend that holds every entry of the interfaces whose ``raw_backend`` is this one."""

    def others_rules(self) -> OthersRules:
        """The foreign rules in this netfilter backend; none if the host does not have it. Creates no table.

        Raises HostError if a table cannot be read.
        """


class ModeDriver(BackendDriver, Protocol):
    """A driver that only accelerates; the kernel may reject a mode. ``apply`` detaches nothing: ``release`` does."""

    def programs(self) -> Collection[int]:
        """The ids of our own programs, in all network namespaces."""

    def release(self, plan: Plan, *, dry_run: bool = False) -> Sequence[str]:
        """Detach from the interfaces that have no mode in this plan. To be called when raw enforces there."""

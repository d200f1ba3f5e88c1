"""The interface of a backend: everything that the enforcer knows of one, and that a backend has to implement.

A driver acts in the network namespace of the calling thread and touches only what is its own. It keeps no state in the
process but what one pass renders: a new process (after a crash, after an upgrade) finds everything in the kernel again.
A host that lacks what a backend needs holds nothing of it: whatever only reads or removes then finds nothing.

:class:`BackendDriver` is asked of every backend. :class:`RawDriver` adds what is asked of one that holds the raw part,
:class:`ModeDriver` what is asked of the one whose modes the kernel may refuse. :mod:`enforcer.backends.registry` names
them all.
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
    """What a driver is made from: each reads its own settings from the FelixConfiguration. ``pin_root`` and
    ``toolchain`` are for XDP.
    """

    felix: FelixConfiguration = field(default_factory=lambda: FelixConfiguration("default"))
    pin_root: Path = PIN_ROOT
    toolchain: Toolchain = Toolchain.LIBBPF


@dataclass(frozen=True)
class EntryCount:
    """How many packets and bytes one entry has matched at one stage of one interface since it is enforced there.

    ``cpus``: (packets, bytes) of each processor, by number, since the program at work was loaded; none at stages that
    do not count by CPU.
    """

    interface: str
    entry: str
    stage: Stage
    packets: int
    bytes: int
    cpus: tuple[tuple[int, int], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ApplyResult:
    """``changes`` are sentences for people, none when nothing had to change.

    ``refused`` says for an interface why the kernel, or a foreign program already there, did not let it be; all the
    other interfaces are enforced as planned. ``foreign``: those where it was the program, which says nothing of what
    the interface can.
    """

    changes: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    foreign: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fill:
    """A set of prefixes: how many it holds and can hold, None: as many as there is memory for. ``holder`` is a pinned
    map, an ipset or a set of nftables.
    """

    holder: str
    stage: Stage
    used: int
    limit: int | None


@dataclass(frozen=True)
class Holding:
    """What one backend holds for one interface: the entries by name, in evaluation order, and how full it is.

    ``attached_to``: the name that the interface has now that it is attached to; "" where it goes by names.
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
    """How many rules of the host itself, not ours, a netfilter has, and whether Kubernetes has left its mark there.

    ``felix``: a chain of Felix, if there is one, and where it is.
    """

    count: int = 0
    kubernetes: bool = False
    felix: str = ""


@dataclass(frozen=True)
class Loss:
    """What another program removed or changed, in a sentence, and which program, if known.

    Without a sentence there was more than the kernel could tell: look, and compare.
    """

    what: str
    by: str = ""


class Watch(Protocol):
    """Notices what others change of what a backend holds. Made in a network namespace, it stays in it."""

    def fileno(self) -> int:
        """Readable when there may be losses; -1 for a watch that has to look, each second."""

    def begin(self) -> bool:
        """The plan uses the backend. Whether there is nothing to compare with yet."""

    def pause(self) -> None:
        """The plan uses the backend no more. To look at a part of the kernel that is not used could load it."""

    def remember(self) -> Iterable[Loss]:
        """What is there now is what is to be there; losses found (and made good) by that."""

    def losses(self, *, thorough: bool = False) -> Iterable[Loss]:
        """What has changed, each reported once. ``thorough``: include expensive checks."""

    def close(self) -> None: ...


class BackendDriver(Protocol):
    """What every backend promises. Reading what it holds costs no dump of counters, but for :meth:`counters`."""

    @property
    def name(self) -> Backend: ...

    @property
    def stage(self) -> Stage:
        """The earliest stage it enforces at."""

    @property
    def watched(self) -> str:
        """The part of the kernel its watch is for. Backends of the same part share a watch."""

    def probe(self) -> Probe:
        """Whether this host has what the backend needs. NO when a part is missing, UNKNOWN when privilege is."""

    def serves(self, plan: Plan) -> bool:
        """Whether the plan has anything for this backend."""

    def check(self, plan: Plan) -> None:
        """Raises UnsupportedRuleError naming every entry it cannot express; changes nothing.

        What is rendered for that is kept: :meth:`apply` renders the same tables no second time.
        """

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Make the kernel enforce exactly this plan. Applying it again changes nothing.

        A packet that the old and the new plan both drop is dropped at every moment in between. With ``dry_run`` the
        same sentences are returned, and nothing is changed.
        """

    def warnings(self, plan: Plan, rules: HostRules) -> Iterable[str]:
        """What the operator may not have meant of a plan that is applied, beside these rules of the host."""

    def counters(self) -> tuple[EntryCount, ...]:
        """A count for each entry enforced, in evaluation order per interface."""

    def interfaces(self) -> Mapping[str, Stage]:
        """The interfaces it holds something for, and at which stage."""

    def status(self) -> Mapping[str, Holding]:
        """What it holds for each of these interfaces."""

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Remove what is ours from these interfaces (None: from everywhere), and say what was removed."""

    def watch(self) -> Watch:
        """A new watch, for whoever closes it."""


class RawDriver(BackendDriver, Protocol):
    """One that holds every entry. Interfaces name in ``raw_backend`` the one that does."""

    def others_rules(self) -> OthersRules:
        """The host's own rules there. Makes no table; a netfilter that the host does not have has no rules.

        Raises HostError where one cannot be read.
        """


class ModeDriver(BackendDriver, Protocol):
    """A driver that only accelerates; the kernel may reject a mode. ``apply`` detaches nothing: ``release`` does."""

    def programs(self) -> Collection[int]:
        """The ids of the programs that are ours, in whichever network namespace."""

    def release(self, plan: Plan, *, dry_run: bool = False) -> Sequence[str]:
        """Let go of the interfaces that the plan has none for, once something else enforces there."""

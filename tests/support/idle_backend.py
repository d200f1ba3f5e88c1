"""A backend that only records its calls: what works with it depends only on the interface of backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.backends.base import ApplyResult, EntryCount, Holding, Loss, OthersRules, Setup
from enforcer.model.facts import HostRules, Probe
from enforcer.model.vocabulary import Answer, Backend, Stage
from enforcer.planning.plan import Plan

ENTRY = "gnp/idle ingress[0]"


@dataclass
class IdleWatch:
    """Has lost ``lost``, once."""

    lost: list[Loss] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def fileno(self) -> int:
        return -1

    def begin(self) -> bool:
        self.calls.append("begin")
        return False

    def pause(self) -> None:
        self.calls.append("pause")

    def remember(self) -> tuple[Loss, ...]:
        self.calls.append("remember")
        return ()

    def losses(self, *, thorough: bool = False) -> list[Loss]:
        found, self.lost = self.lost, []
        return found

    def close(self) -> None:
        self.calls.append("close")


@dataclass
class IdleBackend:
    """Any kind of driver. ``held`` is what it reports as held; ``calls``, which may be shared, records the calls."""

    name: Backend = Backend.NETDEV
    stage: Stage = Stage.NETDEV_INGRESS
    answer: Answer = Answer.YES
    held: dict[str, Stage] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    setups: list[Setup] = field(default_factory=list)
    seen: IdleWatch = field(default_factory=IdleWatch)

    @property
    def watched(self) -> str:
        return f"nothing of {self.name}"

    def _note(self, what: str) -> None:
        self.calls.append(f"{self.name} {what}")

    def of(self, setup: Setup) -> IdleBackend:
        """What a Registry takes: the same driver, whatever the setup."""
        self.setups.append(setup)
        return self

    def probe(self) -> Probe:
        self._note("probe")
        return Probe(self.answer, f"idle says {self.answer}")

    def serves(self, plan: Plan) -> bool:
        return bool(plan.interfaces)

    def check(self, plan: Plan) -> None:
        self._note("check")

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        self._note("apply")
        return ApplyResult((f"{self.name}: applied",))

    def warnings(self, plan: Plan, rules: HostRules) -> tuple[str, ...]:
        return (f"{self.name}: idle",)

    def counters(self) -> tuple[EntryCount, ...]:
        self._note("counters")
        return tuple(EntryCount(name, ENTRY, stage, 1, 60) for name, stage in self.held.items())

    def interfaces(self) -> Mapping[str, Stage]:
        self._note("interfaces")
        return self.held

    def status(self) -> Mapping[str, Holding]:
        self._note("status")
        return {name: Holding(stage, (ENTRY,)) for name, stage in self.held.items()}

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        self._note("detach")
        return (f"{self.name}: detached",)

    def watch(self) -> IdleWatch:
        return self.seen

    def others_rules(self) -> OthersRules:
        self._note("others_rules")
        return OthersRules()

    def programs(self) -> frozenset[int]:
        return frozenset()

    def release(self, plan: Plan, *, dry_run: bool = False) -> tuple[str, ...]:
        self._note("release")
        return (f"{self.name}: released",)

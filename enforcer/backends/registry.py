"""The list of backends in the order of a pass, and the drivers of all of them for one configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enforcer.backends.base import ApplyResult, BackendDriver, EntryCount, Holding, ModeDriver, RawDriver, Setup
from enforcer.backends.iptables.backend import IptablesBackend
from enforcer.backends.nftables.backend import NftablesBackend
from enforcer.backends.nftables.netdev.backend import NetdevBackend
from enforcer.backends.xdp.backend import XdpBackend
from enforcer.model.facts import HostRules
from enforcer.model.vocabulary import Backend, Stage
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class Backends:
    """The drivers of all backends. In a pass ``modes`` comes first, then ``raw``, then ``others``.

    Each interface is enforced by only one of ``raw``. When a host moves from one raw backend to the other, the new one
    is installed before the old one is removed. In between, both see every packet and decide the same.
    """

    modes: ModeDriver
    raw: tuple[RawDriver, ...]
    others: tuple[BackendDriver, ...] = ()

    @property
    def drivers(self) -> tuple[BackendDriver, ...]:
        """All drivers in the order of a pass."""
        return (self.modes, *self.raw, *self.others)

    def named(self, name: Backend) -> BackendDriver:
        return next(driver for driver in self.drivers if driver.name is name)

    def check(self, plan: Plan) -> None:
        """Raises UnsupportedRuleError for what a backend cannot express; changes nothing."""
        for driver in self.drivers:
            driver.check(plan)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Apply the plan with all drivers except ``modes``, which :mod:`enforcer.enforcement.negotiate` applies."""
        raw = sorted(self.raw, key=lambda driver: not driver.serves(plan))
        results = [driver.apply(plan, dry_run=dry_run) for driver in (*raw, *self.others)]
        return ApplyResult(
            tuple(change for result in results for change in result.changes),
            {name: reason for result in results for name, reason in result.refused.items()},
            frozenset().union(*(result.foreign for result in results)),
        )

    def warnings(self, plan: Plan, rules: HostRules) -> Iterator[str]:
        for driver in self.drivers:
            yield from driver.warnings(plan, rules)

    def counters(self) -> tuple[EntryCount, ...]:
        """What each entry matched at each stage: early stages first, then raw, which sees what they pass."""
        return tuple(count for driver in self._by_stage() for count in driver.counters())

    def status(self) -> list[tuple[Backend, Mapping[str, Holding]]]:
        """What each backend holds for each interface, early stages first."""
        return [(driver.name, driver.status()) for driver in self._by_stage()]

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        return tuple(line for driver in self._by_stage() for line in driver.detach(interfaces))

    def _by_stage(self) -> list[BackendDriver]:
        return sorted(self.drivers, key=lambda driver: list(Stage).index(driver.stage))


@dataclass(frozen=True)
class Registry:
    """How to create the driver of each backend. The fields are those of :class:`Backends`."""

    modes: Callable[[Setup], ModeDriver]
    raw: tuple[Callable[[Setup], RawDriver], ...]
    others: tuple[Callable[[Setup], BackendDriver], ...] = ()

    def make(self, setup: Setup) -> Backends:
        return Backends(
            self.modes(setup), tuple(make(setup) for make in self.raw), tuple(make(setup) for make in self.others)
        )


REGISTRY = Registry(XdpBackend.of, (IptablesBackend.of, NftablesBackend.of), (NetdevBackend.of,))

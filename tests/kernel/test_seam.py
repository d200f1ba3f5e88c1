"""The interface between the enforcer and its backends: it is complete, and a pass uses it once.

A backend that does nothing takes part in everything, through ``backends/base.py`` alone. For the real backends, the
tests count how often a pass renders and which counters it reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enforcer.agent.guard import Guard
from enforcer.backends.base import Loss
from enforcer.backends.registry import REGISTRY, Registry
from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.probe import probe_host
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.facts import HostFacts, Probe
from enforcer.model.vocabulary import Answer, Backend, Mode, Stage
from enforcer.planning.plan import Plan
from enforcer.policy.load import load_text
from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import ALLOWED, DENIED, deny_list, documents, endpoint, felix, policy, traffic
from tests.support.idle_backend import ENTRY, IdleBackend

pytestmark = pytest.mark.needs_root

RESOURCES = load_text(documents())
DENY_LIST = "gnp/dos ingress[0]"

# -- it is complete ------------------------------------------------------------------------------------------------


class Idle:
    """Three idle backends, one for each kind of driver, and the calls they received, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.xdp = self._backend(Backend.XDP, Stage.NIC_OFFLOAD)
        self.raw = self._backend(Backend.IPTABLES, Stage.RAW)
        self.netdev = self._backend(Backend.NETDEV, Stage.NETDEV_INGRESS)
        self.registry = Registry(self.xdp.of, (self.raw.of,), (self.netdev.of,))

    def _backend(self, name: Backend, stage: Stage) -> IdleBackend:
        return IdleBackend(name, stage, calls=self.calls)

    def enforcer(self, pin_root: Path) -> Enforcer:
        return Enforcer(NODE, pin_root=pin_root, registry=self.registry)

    def called(self, *what: str) -> list[str]:
        """The calls of these names, in order."""
        return [call for call in self.calls if call.partition(" ")[2] in what]


def test_a_pass_goes_through_backends_that_do_nothing(netns_pair: NetnsPair, pin_root: Path) -> None:
    idle = Idle()
    with netns_pair.host():
        applied = idle.enforcer(pin_root).apply(RESOURCES)
    assert applied.plan.interfaces[0].mode is Mode.NATIVE
    assert applied.changes == ("xdp: applied", "iptables: applied", "netdev: applied", "xdp: released")
    assert {"xdp: idle", "iptables: idle", "netdev: idle"} <= set(applied.warnings)
    assert idle.called("check") == ["xdp check", "iptables check", "netdev check"]
    assert idle.calls.index("netdev check") < idle.calls.index("xdp apply")
    assert not idle.called("counters", "status")
    assert all(setup.pin_root == pin_root for backend in (idle.xdp, idle.raw) for setup in backend.setups)


def test_status_counters_and_detach_are_those_of_all_backends_early_stages_first(
    netns_pair: NetnsPair, pin_root: Path
) -> None:
    idle = Idle()
    idle.xdp.held, idle.raw.held = {"eth0": Stage.DRIVER}, {"eth0": Stage.RAW, "eth7": Stage.RAW}
    idle.netdev.held = {"eth7": Stage.NETDEV_INGRESS}
    enforcer = idle.enforcer(pin_root)
    with netns_pair.host():
        first, second = enforcer.status()
        assert [(item.interface, item.stage) for item in enforcer.counters()] == [
            ("eth0", Stage.DRIVER),
            ("eth7", Stage.NETDEV_INGRESS),
            ("eth0", Stage.RAW),
            ("eth7", Stage.RAW),
        ]
        assert enforcer.detach() == ("xdp: detached", "netdev: detached", "iptables: detached")
    assert (first.interface, first.mode, first.raw_backend, first.netdev) == (
        *("eth0", Mode.NATIVE, Backend.IPTABLES, False),
    )
    assert [item.stage for item in first.counts] == [Stage.DRIVER, Stage.RAW]
    assert (second.interface, second.mode, second.netdev, second.present) == ("eth7", None, True, False)
    assert second.entries == (ENTRY,)


def test_what_a_backend_cannot_express_is_refused_before_any_is_applied(netns_pair: NetnsPair, pin_root: Path) -> None:
    class Refusing(IdleBackend):
        def check(self, plan: Plan) -> None:
            raise UnsupportedRuleError("idle cannot enforce anything")

    idle = Idle()
    registry = replace(idle.registry, others=(Refusing().of,))
    with netns_pair.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, registry=registry)
        with pytest.raises(UnsupportedRuleError, match="idle cannot enforce anything"):
            enforcer.apply(RESOURCES)
        assert not idle.called("apply", "release")
        rest, refused = enforcer.enforceable(RESOURCES)
    assert refused == {"dos": "idle cannot enforce anything"}
    assert rest.policies == ()


def test_it_takes_its_place_among_the_others(host: NetnsPair, pin_root: Path) -> None:
    idle = IdleBackend(held={"eth0": Stage.NETDEV_INGRESS})
    registry = replace(REGISTRY, others=(*REGISTRY.others, idle.of))
    with host.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, registry=registry)
        applied = enforcer.apply(RESOURCES)
        assert applied.changes[-1] == "netdev: applied"
        (status,) = enforcer.status()
        assert (status.mode, status.netdev) == (Mode.NATIVE, True)
        assert enforcer.entries() >= {DENY_LIST, ENTRY}
    with traffic(host) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_the_guard_watches_it_as_long_as_a_plan_serves_it(netns_pair: NetnsPair, pin_root: Path) -> None:
    idle = Idle()
    with netns_pair.host():
        enforcer = idle.enforcer(pin_root)
        with Guard(enforcer.backends().drivers) as guard:
            with guard.passing():
                guard.watch(enforcer.apply(RESOURCES).plan)
            assert idle.raw.seen.calls[-2:] == ["begin", "remember"]
            idle.raw.seen.lost.append(Loss("nothing is gone", "nobody"))
            guard.look()
            assert guard.noticed() == (Loss("nothing is gone", "nobody"),)
            with guard.passing():
                guard.watch(Plan(NODE, ()))
            assert "pause" in idle.raw.seen.calls
    assert idle.raw.seen.calls[-1] == "close"


# -- a pass uses it once -------------------------------------------------------------------------------------------

RENDERERS = {
    "iptables": "enforcer.backends.iptables.backend.render",
    "nftables": "enforcer.backends.nftables.backend.render",
    "netdev": "enforcer.backends.nftables.netdev.backend.render",
    "xdp": "enforcer.backends.xdp.converge.render",
}
COUNTER_READERS = {
    "iptables": "enforcer.backends.iptables.backend.read_counters",
    "nftables": "enforcer.backends.nftables.backend.read_counters",
    "netdev": "enforcer.backends.nftables.netdev.backend.read_counters",
    "xdp": "enforcer.backends.xdp.backend.entry_counts",
}


@contextmanager
def counted(patch: pytest.MonkeyPatch, functions: dict[str, str]) -> Iterator[Counter[str]]:
    """How often each of these functions is called within the block."""
    calls: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            calls[name] += 1
            return function(*args, **more)

        return call

    with patch.context() as context:
        for name, path in functions.items():
            module, _, attribute = path.rpartition(".")
            found = getattr(__import__(module, fromlist=[attribute]), attribute)
            context.setattr(path, counting(name, found))
        yield calls


@pytest.mark.parametrize(
    ("mode", "raw", "netdev", "rendered"),
    [
        (ModeChoice.NATIVE, RawChoice.IPTABLES, False, {"xdp": 1, "iptables": 1}),
        (ModeChoice.NATIVE, RawChoice.NFTABLES, True, {"xdp": 1, "nftables": 1}),
        (ModeChoice.RAW, RawChoice.IPTABLES, True, {"netdev": 1, "iptables": 1}),
        (ModeChoice.RAW, RawChoice.NFTABLES, False, {"nftables": 1}),
    ],
    ids=["XDP and iptables", "XDP, netdev requested, nftables", "netdev and iptables", "nftables alone"],
)
def test_a_pass_renders_each_backend_once_and_reads_no_counter(
    host: NetnsPair,
    pin_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: ModeChoice,
    raw: RawChoice,
    netdev: bool,
    rendered: dict[str, int],
) -> None:
    with host.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, choice=mode, raw=raw, netdev=netdev)
        for expected in (rendered, {}):  # the second pass changes nothing, and has the renderings of the first
            with counted(monkeypatch, RENDERERS) as renders, counted(monkeypatch, COUNTER_READERS) as reads:
                enforcer.apply(RESOURCES)
            # A backend without interfaces may render an empty table: that is not compared.
            assert {name: count for name, count in renders.items() if name in rendered and name != "netdev"} == {
                name: count for name, count in expected.items() if name != "netdev"
            }
            assert max(renders.values(), default=0) <= 1
            assert not reads


@pytest.mark.parametrize("raw", [RawChoice.IPTABLES, RawChoice.NFTABLES], ids=str)
@pytest.mark.parametrize("mode", [ModeChoice.NATIVE, ModeChoice.RAW], ids=str)
def test_names_are_read_without_counters_and_counters_once(
    host: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch, mode: ModeChoice, raw: RawChoice
) -> None:
    stages = {"eth0": Stage.DRIVER if mode is ModeChoice.NATIVE else Stage.NETDEV_INGRESS}
    with host.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, choice=mode, raw=raw, netdev=True)
        enforcer.apply(RESOURCES)
        with counted(monkeypatch, COUNTER_READERS) as reads:
            found = [driver.interfaces() for driver in enforcer.backends().drivers]
            assert [item for item in found if item] in ([stages, {"eth0": Stage.RAW}], [{"eth0": Stage.RAW}, stages])
            assert DENY_LIST in enforcer.entries()
            assert not reads
            (status,) = enforcer.status()
            assert DENY_LIST in status.entries
        assert all(count <= 2 for count in reads.values()), "at most once for each family"


@pytest.mark.parametrize("raw", [RawChoice.IPTABLES, RawChoice.NFTABLES], ids=str)
def test_listing_interfaces_reads_only_the_base_chains(
    host: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch, raw: RawChoice
) -> None:
    decoders = {
        "iptables": "enforcer.backends.iptables.read.decode",
        "nftables": "enforcer.backends.nftables.blob.decode_rule",
    }
    with host.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, choice=ModeChoice.RAW, raw=raw)
        enforcer.apply(load_text(documents() + "---\n" + felix()))
        driver = enforcer.backends().named(Backend(raw.value))
        with counted(monkeypatch, decoders) as decoded:
            assert driver.interfaces() == {"eth0": Stage.RAW}
        few = decoded[str(raw)]
        with counted(monkeypatch, decoders) as decoded:
            driver.counters()
        assert 0 < few <= 4, "a rule that clears the mark and one that dispatches, for each family"
        assert few < decoded[str(raw)]


def test_a_mode_that_is_refused_costs_no_second_rendering(
    host: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only attaching shows here that lo has no native XDP; eth0 is still probed again."""

    def cannot_tell(node: str, names: Sequence[str], *, ours: Collection[int] = ()) -> HostFacts:
        facts = probe_host(node, names, ours=ours)
        modes = dict.fromkeys(Mode, Probe(Answer.UNKNOWN, "not probed"))
        modes[Mode.OFFLOAD] = Probe(Answer.NO, "no hardware")
        return replace(facts, interfaces=tuple(replace(item, modes=modes) for item in facts.interfaces))

    monkeypatch.setattr("enforcer.enforcement.probe_cache.probe_host", cannot_tell)
    both = documents(endpoint(), endpoint("lo"), deny_list("203.0.113.0/24"), policy(), felix(genericXDPEnabled="true"))
    tries = {"tries": "enforcer.backends.xdp.backend.converge"}
    with host.host(), counted(monkeypatch, RENDERERS) as renders, counted(monkeypatch, tries) as tried:
        applied = Enforcer(NODE, pin_root=pin_root).apply(load_text(both))
    assert {item.interface: item.mode for item in applied.plan.interfaces} == {"lo": Mode.GENERIC, "eth0": Mode.NATIVE}
    assert (tried["tries"], renders["xdp"]) == (2, 2), "once for each interface"


def test_what_xdp_holds_of_a_table_is_worked_out_once(
    host: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"obstacles": "enforcer.planning.xdp_run.obstacles"}
    with host.host(), counted(monkeypatch, where) as calls:
        Enforcer(NODE, pin_root=pin_root, netdev=True).apply(RESOURCES)
    assert calls["obstacles"] <= 2, "of the program and of a device"

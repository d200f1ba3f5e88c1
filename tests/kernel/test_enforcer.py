"""The enforcer and the kernel: where policy is enforced, what it does to packets, what a refused pass leaves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.backends.iptables import installed_chains
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.enforcement.probing import probe_named
from enforcer.kernel.bpf.links import attach_xdp
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.probe import probe_host
from enforcer.kernel.rtnetlink import interface
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import UnsupportedKernelError, UnsupportedRuleError, UsageError
from enforcer.model.facts import HostFacts, Probe
from enforcer.model.vocabulary import Answer, Mode, Stage
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    DENIED,
    DENY_BOTS,
    DENY_UDP,
    NODE,
    deny_list,
    documents,
    endpoint,
    felix,
    policy,
    run,
    traffic,
)

pytestmark = pytest.mark.needs_root

STAGES = {
    ModeChoice.AUTO: Stage.DRIVER,
    ModeChoice.NATIVE: Stage.DRIVER,
    ModeChoice.GENERIC: Stage.GENERIC,
    ModeChoice.RAW: Stage.RAW,
}
BOTS = deny_list("203.0.113.0/24")
LOOPBACK = documents(endpoint("lo"), BOTS, policy())


def apply(
    pair: NetnsPair,
    pin_root: Path,
    text: str = "",
    *,
    choice: ModeChoice = ModeChoice.AUTO,
    dry_run: bool = False,
) -> Applied:
    with pair.host():
        return Enforcer(NODE, pin_root=pin_root, choice=choice).apply(load_text(text or documents()), dry_run=dry_run)


def only(applied: Applied) -> InterfacePlan:
    (item,) = applied.plan.interfaces
    return item


def drops(pair: NetnsPair, pin_root: Path) -> dict[Stage, int]:
    """Packets that the first entry matched, by stage."""
    with pair.host():
        counts = Enforcer(NODE, pin_root=pin_root).counters()
    return {count.stage: count.packets for count in counts if count.entry == "gnp/dos ingress[0]" and count.packets}


def in_raw(pair: NetnsPair, pin_root: Path) -> list[str]:
    """The interfaces that are enforced in raw and nowhere else."""
    with pair.host():
        return [item.interface for item in Enforcer(NODE, pin_root=pin_root).status() if item.mode is None]


def is_clean(pair: NetnsPair, pin_root: Path) -> bool:
    """Whether the host's namespace and the pin root hold no state of ours."""
    with pair.host():
        chains = [chain for version in (4, 6) for chain in installed_chains(version)]
        state = interface("eth0")
        return not chains and not pin_root.exists() and (state is None or not state.xdp)


@pytest.fixture
def detached(netns_pair: NetnsPair, pin_root: Path) -> Iterator[NetnsPair]:
    """The pair; afterwards everything is detached, and nothing may be left."""
    yield netns_pair
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()
    assert not pin_root.exists()


@pytest.mark.parametrize("choice", STAGES)
def test_policy_drops_at_the_stage_the_plan_says(detached: NetnsPair, pin_root: Path, choice: ModeChoice) -> None:
    applied = apply(detached, pin_root, choice=choice)
    assert [item.stage for item in only(applied).entries] == [STAGES[choice]] * 2
    with traffic(detached) as wire:
        assert wire.arrivals(DENIED, DENIED, ALLOWED) == [ALLOWED]
    assert drops(detached, pin_root) == {STAGES[choice]: 2}


@pytest.mark.parametrize("choice", STAGES)
def test_a_second_pass_changes_nothing(detached: NetnsPair, pin_root: Path, choice: ModeChoice) -> None:
    assert apply(detached, pin_root, choice=choice).changes
    assert apply(detached, pin_root, choice=choice).changes == ()


@pytest.mark.parametrize("choice", STAGES)
def test_detach_leaves_nothing(netns_pair: NetnsPair, pin_root: Path, choice: ModeChoice) -> None:
    apply(netns_pair, pin_root, choice=choice)
    with netns_pair.host():
        assert Enforcer(NODE, pin_root=pin_root).detach()
        assert Enforcer(NODE, pin_root=pin_root).detach() == ()
    assert is_clean(netns_pair, pin_root)


def test_detach_of_one_interface_leaves_the_others(detached: NetnsPair, pin_root: Path) -> None:
    detached.make_veth("eth1", "wire1")
    apply(detached, pin_root, documents(endpoint(), endpoint("eth1"), BOTS, policy()))
    with detached.host():
        enforcer = Enforcer(NODE, pin_root=pin_root)
        enforcer.detach(["eth0"])
        assert [(item.interface, item.mode) for item in enforcer.status()] == [("eth1", Mode.NATIVE)]


def test_a_dry_run_says_the_same_and_changes_nothing(netns_pair: NetnsPair, pin_root: Path) -> None:
    said = apply(netns_pair, pin_root, dry_run=True).changes
    assert is_clean(netns_pair, pin_root)
    assert apply(netns_pair, pin_root).changes == said
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()


def test_a_new_member_of_the_set_is_dropped_and_one_taken_out_is_not(detached: NetnsPair, pin_root: Path) -> None:
    apply(detached, pin_root)
    with traffic(detached) as wire:
        apply(detached, pin_root, documents(endpoint(), deny_list("198.51.100.0/24"), policy()))
        assert wire.arrivals(ALLOWED, DENIED) == [DENIED]


def test_no_packet_slips_through_while_policy_changes(detached: NetnsPair, pin_root: Path) -> None:
    """Modes, entries and members change under a flood from a source that every version denies."""
    versions = [
        (documents(endpoint(), BOTS, policy(*rules)), choice)
        for choice in (ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.RAW)
        for rules in ((DENY_BOTS,), (DENY_BOTS, DENY_UDP), (DENY_UDP, DENY_BOTS))
    ]
    apply(detached, pin_root, versions[0][0])
    with traffic(detached) as wire, wire.flood(DENIED):
        for text, choice in versions:
            apply(detached, pin_root, text, choice=choice)
        for text, choice in reversed(versions):
            apply(detached, pin_root, text.replace("0/24", "0/24, 192.0.2.0/24"), choice=choice)
        assert wire.arrivals(ALLOWED) == [ALLOWED]


def test_policy_without_a_place_in_xdp_disturbs_no_driver(
    detached: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[Sequence[str]] = []
    monkeypatch.setattr(
        "enforcer.enforcement.probe_cache.probe_host", lambda node, names, ours: probed.append(names) or HostFacts(node)
    )
    assert (
        only(apply(detached, pin_root, documents(endpoint(), BOTS, policy("{action: Allow, protocol: UDP}")))).mode
        is None
    )
    assert probed == [[]]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_an_interface_without_the_requested_mode_is_an_error_and_raw_enforces(
    detached: NetnsPair, pin_root: Path
) -> None:
    with pytest.raises(UnsupportedKernelError, match=r"lo: mode 'native' is not possible: .*'auto' would choose raw"):
        apply(detached, pin_root, LOOPBACK, choice=ModeChoice.NATIVE)
    assert in_raw(detached, pin_root) == ["lo"]


def test_what_was_enforced_stays_enforced_when_another_mode_is_refused(detached: NetnsPair, pin_root: Path) -> None:
    apply(detached, pin_root, choice=ModeChoice.GENERIC)
    with pytest.raises(UnsupportedKernelError, match="mode 'offload'"):
        apply(
            detached, pin_root, documents(endpoint(), deny_list("198.51.100.0/24"), policy()), choice=ModeChoice.OFFLOAD
        )
    with detached.host():
        (status,) = Enforcer(NODE, pin_root=pin_root).status()
    assert status.mode is Mode.GENERIC
    with traffic(detached) as wire:  # the new policy, in the old mode
        assert wire.arrivals(ALLOWED, DENIED) == [DENIED]


def test_one_interfaces_refusal_is_nothing_to_the_others(detached: NetnsPair, pin_root: Path) -> None:
    both = documents(endpoint(), endpoint("lo"), BOTS, policy())
    with pytest.raises(UnsupportedKernelError) as caught:
        apply(detached, pin_root, both, choice=ModeChoice.NATIVE)
    assert "eth0" not in str(caught.value)
    with detached.host():
        assert [(item.interface, item.mode) for item in Enforcer(NODE, pin_root=pin_root).status()] == [
            ("eth0", Mode.NATIVE),
            ("lo", None),
        ]


@contextmanager
def nothing_is_known(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Probes that cannot tell: only attaching shows it."""

    def cannot_tell(node: str, names: Sequence[str], *, ours: Collection[int] = ()) -> HostFacts:
        facts = probe_host(node, names, ours=ours)
        modes = {mode: Probe(Answer.UNKNOWN, "not probed") for mode in Mode}
        return replace(facts, interfaces=tuple(replace(item, modes=modes) for item in facts.interfaces))

    with patch.context() as context:
        context.setattr("enforcer.enforcement.probe_cache.probe_host", cannot_tell)
        yield


def test_a_mode_refused_at_attaching_is_planned_again_and_remembered(
    detached: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = load_text(documents(endpoint("lo"), BOTS, policy(), felix(genericXDPEnabled="true")))
    with nothing_is_known(monkeypatch), detached.host():
        enforcer = Enforcer(NODE, pin_root=pin_root)
        plan = only(enforcer.apply(resources))
        assert plan.mode is Mode.GENERIC
        assert [mode for mode, _ in plan.mode_reasons] == [Mode.OFFLOAD, Mode.NATIVE]
        assert all(reason.startswith("rejected when attaching: ") for _, reason in plan.mode_reasons)
        again = enforcer.apply(resources)
        assert again.changes == ()
        assert only(again) == plan


def test_a_mode_requested_by_name_and_refused_at_attaching_leaves_raw(
    detached: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nothing_is_known(monkeypatch), pytest.raises(UnsupportedKernelError, match="rejected when attaching"):
        apply(detached, pin_root, LOOPBACK, choice=ModeChoice.NATIVE)
    assert in_raw(detached, pin_root) == ["lo"]


def test_a_foreign_program_stays_and_raw_enforces_with_the_reason(detached: NetnsPair, pin_root: Path) -> None:
    with detached.host():
        state = interface("eth0")
        assert state is not None
        fd = load_pass_program()
        with attach_xdp(fd, state.index, Mode.NATIVE):
            os.close(fd)
            applied = apply(detached, pin_root)
            assert only(applied).mode is None
            assert "a foreign XDP program is attached and stays" in applied.fallbacks[0]
            Enforcer(NODE, pin_root=pin_root).detach()
            after = interface("eth0")
            assert after is not None
            assert len(after.xdp) == 1
        # Once it is removed, the next pass uses the earlier mode.
        assert only(apply(detached, pin_root)).mode is Mode.NATIVE


def test_a_rule_that_cannot_be_enforced_is_named_and_nothing_is_changed(netns_pair: NetnsPair, pin_root: Path) -> None:
    service = "{action: Deny, source: {services: {name: web, namespace: shop}}}"
    with pytest.raises(UnsupportedRuleError, match=r"gnp/dos ingress\[1\].*source.services"):
        apply(netns_pair, pin_root, documents(endpoint(), BOTS, policy(DENY_BOTS, service)))
    assert is_clean(netns_pair, pin_root)


# -- what is absent ---------------------------------------------------------------------------------------------------


def test_raw_is_ready_before_an_interface_appears(detached: NetnsPair, pin_root: Path) -> None:
    text = documents(endpoint("eth1"), BOTS, policy())
    absent = apply(detached, pin_root, text, choice=ModeChoice.NATIVE)
    assert only(absent).mode is None
    assert absent.warnings == ("interface eth1 does not exist; raw is ready for it, XDP follows when it appears",)
    detached.make_veth("eth1", "wire1")
    assert only(apply(detached, pin_root, text, choice=ModeChoice.NATIVE)).mode is Mode.NATIVE


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        pytest.param(
            documents(endpoint(node="ruby"), BOTS, policy()), "nodes with HostEndpoints: ruby", id="another node's"
        ),
        pytest.param(documents(endpoint(), BOTS), "no untracked policy", id="no policy"),
    ],
)
def test_policy_that_enforces_nothing_here_is_said_to(
    netns_pair: NetnsPair, pin_root: Path, text: str, warning: str
) -> None:
    applied = apply(netns_pair, pin_root, text)
    assert applied.plan.interfaces == ()
    assert warning in applied.warnings[0]
    assert is_clean(netns_pair, pin_root)


def test_probing_an_interface_that_is_not_there_is_a_usage_error(netns_pair: NetnsPair) -> None:
    with netns_pair.host(), pytest.raises(UsageError, match=r"no interface eth9 .* there are lo, eth0"):
        probe_named(NODE, ["eth9"])


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_applies_reports_and_detaches(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    (tmp_path / "dos.yaml").write_text(documents())
    pins = ["--pin-root", str(pin_root)]
    done = run(netns_pair, ["apply", "-f", str(tmp_path), "--node", NODE, *pins, "-o", "json"])
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["plan"]["interfaces"][0]["mode"] == "native"
    with traffic(netns_pair) as wire:
        wire.arrivals(DENIED, ALLOWED)
    (status,) = json.loads(run(netns_pair, ["status", *pins, "-o", "json"]).stdout)["interfaces"]
    assert (status["interface"], status["mode"], status["stage"]) == ("eth0", "native", "driver")
    assert status["entries"] == ["gnp/dos ingress[0]", "gnp/dos ingress[1]"]
    fills = {fill["holder"].split("-")[0]: (fill["used"], fill["limit"]) for fill in status["capacity"]}
    assert fills["XDP IPv4 ranges"] == (1, None)
    assert fills["ipset enf4"][0] == 1
    counters = json.loads(run(netns_pair, ["counters", *pins, "-o", "json"]).stdout)["counters"]
    assert [(item["stage"], item["packets"]) for item in counters] == [
        ("driver", 1),
        ("driver", 0),
        ("raw", 0),
        ("raw", 0),
    ]
    assert [len(item["cpus"]) > 0 for item in counters] == [True, True, False, False]
    assert [sum(cpu["packets"] for cpu in item["cpus"]) for item in counters] == [1, 0, 0, 0]
    shown = run(netns_pair, ["counters", *pins, "--per-cpu"]).stdout
    assert re.search(r"gnp/dos ingress\[0\] +driver +1 +\d+ +\d+: 1\b", shown)
    assert run(netns_pair, ["detach", *pins]).returncode == 0
    assert is_clean(netns_pair, pin_root)


def test_the_command_ends_with_3_when_a_mode_is_refused(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    (tmp_path / "dos.yaml").write_text(LOOPBACK)
    words = ["apply", "-f", str(tmp_path), "--node", NODE, "--pin-root", str(pin_root), "--mode", "native"]
    refused = run(netns_pair, words)
    assert refused.returncode == 3
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: lo: mode 'native' is not possible: ")
    assert refused.stderr.count("\n") == 1
    assert in_raw(netns_pair, pin_root) == ["lo"]
    assert run(netns_pair, ["detach", "--pin-root", str(pin_root)]).returncode == 0
    assert is_clean(netns_pair, pin_root)


def test_namespaces_with_equal_interface_names_do_not_meet(netns_pair: NetnsPair, tmp_path: Path) -> None:
    """Without --pin-root each namespace has its own pins, so a second host's eth0 is not the first's."""
    (tmp_path / "dos.yaml").write_text(documents())
    assert run(netns_pair, ["apply", "-f", str(tmp_path), "--node", NODE]).returncode == 0
    with netns_pair.peer():
        assert Enforcer(NODE).status() == ()
        assert Enforcer(NODE).detach() == ()
    with netns_pair.host():
        assert [item.mode for item in Enforcer(NODE).status()] == [Mode.NATIVE]
        Enforcer(NODE).detach()

"""make_plan as a table: the plan for a policy and a host's facts, and the stated reasons."""

from __future__ import annotations

import io
from collections.abc import Mapping
from ipaddress import IPv4Network, ip_network

import pytest
from rich.console import Console

from enforcer.cli.plan_view import plan_as_dict, print_plan, stages_of
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import Action, Answer, Backend, Direction, Mode, Stage
from enforcer.planning.plan import InterfacePlan, Plan, TrackedPlan, make_plan, wants_xdp
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.resources import UDP, Failsafe, FelixConfiguration, PortRange
from enforcer.policy.ruletable import Entry, RuleTable, TrackedPolicy
from enforcer.policy.tracked import Hook, TierChain, TrackedChain, TrackedTable
from tests.support.entries import SideMatch, entry_of

YES, NO, UNKNOWN = Probe(Answer.YES), Probe(Answer.NO, "the driver has none"), Probe(Answer.UNKNOWN, "no privilege")
EVERYTHING = {Mode.OFFLOAD: YES, Mode.NATIVE: YES, Mode.GENERIC: YES}
VETH = {Mode.OFFLOAD: NO, Mode.NATIVE: YES, Mode.GENERIC: YES}
OLD_NIC = {Mode.OFFLOAD: NO, Mode.NATIVE: NO, Mode.GENERIC: YES}

NO_OFFLOAD = "offload: the driver has none"
DCCP = "XDP does not read the ports of protocol 33"

FELIX = FelixConfiguration("default")
GENERIC_ALLOWED = FelixConfiguration("default", generic_xdp_enabled=True)
XDP_OFF = FelixConfiguration("default", xdp_enabled=False, generic_xdp_enabled=True)


def deny(number: int, **fields: object) -> Entry:
    source = SideMatch(nets=(ip_network("203.0.113.0/24"),))
    # For mypy: of several types
    return entry_of(**{"name": f"gnp/x ingress[{number}]", "action": Action.DENY, "source": source} | fields)  # type: ignore[arg-type]


EARLY = deny(0)
BY_PORT = deny(1, protocol=UDP)
UNREAD = deny(1, protocol=33, destination=SideMatch(ports=(PortRange(53, 53),)))  # DCCP
ALLOW = deny(1, action=Action.ALLOW)
LATE = deny(2)
EGRESS = deny(0, name="gnp/x egress[0]", direction=Direction.EGRESS)


def table(*ingress: Entry, egress: tuple[Entry, ...] = (), endpoint: str | None = "jasper-eth0") -> RuleTable:
    return RuleTable("eth0", endpoint, ingress, egress)


def facts(modes: Mapping[Mode, Probe], *, foreign: str = "", raw: Probe = YES) -> HostFacts:
    interface = InterfaceFacts("eth0", 2, modes=modes, foreign_xdp=foreign)
    return HostFacts("jasper", interfaces=(interface,), backends={Backend.IPTABLES: raw})


def plan_of(
    rules: RuleTable,
    host: HostFacts,
    *,
    felix: FelixConfiguration = FELIX,
    choice: ModeChoice = ModeChoice.AUTO,
    netdev: bool = False,
) -> InterfacePlan:
    (item,) = make_plan([rules], host, felix=felix, choice=choice, netdev=netdev).interfaces
    return item


@pytest.mark.parametrize(
    ("modes", "felix", "mode"),
    [
        pytest.param(EVERYTHING, FELIX, Mode.OFFLOAD, id="hardware comes first"),
        pytest.param(VETH, FELIX, Mode.NATIVE, id="then the driver"),
        pytest.param(OLD_NIC, FELIX, None, id="generic is not taken unasked"),
        pytest.param(OLD_NIC, GENERIC_ALLOWED, Mode.GENERIC, id="genericXDPEnabled allows generic"),
        pytest.param(VETH, GENERIC_ALLOWED, Mode.NATIVE, id="genericXDPEnabled does not prefer generic"),
        pytest.param(EVERYTHING, XDP_OFF, None, id="xdpEnabled false switches all of XDP off"),
        pytest.param(VETH | {Mode.NATIVE: UNKNOWN}, FELIX, Mode.NATIVE, id="what a probe cannot tell is tried"),
        pytest.param({}, FELIX, Mode.OFFLOAD, id="so is what was not probed"),
    ],
)
def test_auto_takes_the_earliest_mode_that_may_work(
    modes: Mapping[Mode, Probe], felix: FelixConfiguration, mode: Mode | None
) -> None:
    assert plan_of(table(EARLY), facts(modes), felix=felix).mode is mode


@pytest.mark.parametrize("mode", Mode)
def test_a_mode_requested_by_name_is_taken_whatever_the_configuration_says(mode: Mode) -> None:
    plan = plan_of(table(EARLY), facts(EVERYTHING), felix=XDP_OFF, choice=ModeChoice.of(mode))
    assert plan.mode is mode
    earlier = list(Mode)[: list(Mode).index(mode)]
    assert plan.mode_reasons == tuple((item, f"mode '{mode}' was requested") for item in earlier)


def test_a_mode_requested_by_name_is_tried_when_the_probe_cannot_tell() -> None:
    assert plan_of(table(EARLY), facts({Mode.NATIVE: UNKNOWN}), choice=ModeChoice.NATIVE).mode is Mode.NATIVE


def test_raw_requested_by_name_means_no_xdp() -> None:
    plan = plan_of(table(EARLY), facts(EVERYTHING), choice=ModeChoice.RAW)
    assert plan.mode is None
    assert plan.entries[0].reason == "offload, native, generic: mode 'raw' was requested"


@pytest.mark.parametrize(
    ("modes", "felix", "auto"),
    [
        pytest.param(OLD_NIC, FELIX, "raw", id="auto would choose raw"),
        pytest.param(OLD_NIC, GENERIC_ALLOWED, "generic", id="auto would choose generic"),
    ],
)
def test_a_mode_that_is_refused_is_an_error_that_names_the_way_out(
    modes: Mapping[Mode, Probe], felix: FelixConfiguration, auto: str
) -> None:
    with pytest.raises(UnsupportedKernelError) as caught:
        plan_of(table(EARLY), facts(modes), felix=felix, choice=ModeChoice.NATIVE)
    expected = f"eth0: mode 'native' is not possible: the driver has none. Mode 'auto' would choose {auto}"
    assert str(caught.value) == expected


def test_every_interface_that_refuses_is_named_at_once() -> None:
    tables = [table(EARLY), RuleTable("eth1", "jasper-eth1", (EARLY,))]
    host = HostFacts("jasper", interfaces=tuple(InterfaceFacts(name, modes=OLD_NIC) for name in ("eth0", "eth1")))
    with pytest.raises(UnsupportedKernelError, match=r"eth0: mode.*\neth1: mode"):
        make_plan(tables, host, felix=FELIX, choice=ModeChoice.NATIVE)


def test_a_foreign_program_stays_and_raw_enforces() -> None:
    plan = plan_of(table(EARLY), facts(EVERYTHING, foreign="program id 7 (katran), native"))
    why = "a foreign XDP program is attached and stays: program id 7 (katran), native"
    assert plan.mode is None
    assert plan.mode_reasons == tuple((mode, why) for mode in Mode)
    assert (plan.entries[0].stage, plan.entries[0].reason) == (Stage.RAW, f"offload, native, generic: {why}")


def test_a_foreign_program_refuses_a_mode_requested_by_name() -> None:
    with pytest.raises(UnsupportedKernelError, match="katran"):
        plan_of(table(EARLY), facts(EVERYTHING, foreign="program id 7 (katran)"), choice=ModeChoice.NATIVE)


@pytest.mark.parametrize(
    ("entries", "stages", "reasons"),
    [
        pytest.param((EARLY, BY_PORT), ["driver"] * 2, [NO_OFFLOAD] * 2, id="all that it can decide"),
        pytest.param(
            (EARLY, ALLOW, LATE),
            ["driver", "raw", "driver"],
            [NO_OFFLOAD, "XDP lets its packets pass; only raw accepts untracked", NO_OFFLOAD],
            id="an Allow is held, and acts in raw",
        ),
        pytest.param(
            (EARLY, UNREAD), ["driver", "raw"], [NO_OFFLOAD, DCCP], id="one that it can, then one that it cannot"
        ),
        pytest.param(
            (EARLY, UNREAD, LATE),
            ["driver", "raw", "raw"],
            [NO_OFFLOAD, DCCP, "after gnp/x ingress[1], which XDP does not hold"],
            id="nothing after one that it cannot",
        ),
        pytest.param(
            (EARLY, UNREAD, UNREAD),
            ["driver", "raw", "raw"],
            [NO_OFFLOAD, DCCP, DCCP],
            id="an obstacle of one's own comes before that of another",
        ),
    ],
)
def test_xdp_gets_the_longest_run_it_can_decide(
    entries: tuple[Entry, ...], stages: list[str], reasons: list[str]
) -> None:
    plan = plan_of(table(*entries), facts(VETH))
    assert [str(item.stage) for item in plan.entries] == stages
    assert [item.reason for item in plan.entries] == reasons
    assert plan.xdp_entries == entries[: entries.index(UNREAD) if UNREAD in entries else None]


def test_without_an_entry_for_it_there_is_no_program_and_no_complaint_about_modes() -> None:
    plan = plan_of(table(UNREAD, LATE), facts(OLD_NIC), choice=ModeChoice.NATIVE)
    assert plan.mode is None
    assert plan.xdp_entries == ()
    assert plan.mode_reasons == tuple((mode, DCCP) for mode in Mode)


@pytest.mark.parametrize(
    ("entries", "modes", "mode", "reasons"),
    [
        pytest.param((EARLY, LATE), EVERYTHING, Mode.OFFLOAD, (), id="a device that holds all comes first"),
        pytest.param(
            (EARLY, BY_PORT, LATE),
            EVERYTHING,
            Mode.NATIVE,
            ((Mode.OFFLOAD, "holds 1 of 3 entries; native holds 3"),),
            id="the driver, when it holds more than the device",
        ),
        pytest.param(
            (EARLY, BY_PORT),
            EVERYTHING | {Mode.NATIVE: NO},
            Mode.OFFLOAD,
            (),
            id="a device that holds some before generic, when the driver has nothing",
        ),
        pytest.param(
            (BY_PORT,),
            EVERYTHING,
            Mode.NATIVE,
            ((Mode.OFFLOAD, "matches on protocol"),),
            id="the driver, when the device would hold nothing",
        ),
    ],
)
def test_auto_takes_the_mode_that_holds_most(
    entries: tuple[Entry, ...],
    modes: Mapping[Mode, Probe],
    mode: Mode,
    reasons: tuple[tuple[Mode, str], ...],
) -> None:
    plan = plan_of(table(*entries), facts(modes))
    assert (plan.mode, plan.mode_reasons) == (mode, reasons)


def test_an_allow_alone_is_no_reason_for_a_program() -> None:
    plan = plan_of(table(ALLOW), facts(VETH))
    assert plan.mode is None
    assert plan.mode_reasons == tuple((mode, "no entry that XDP could drop for") for mode in Mode)


def test_at_the_earliest_stage_there_is_there_is_nothing_to_explain() -> None:
    plan = plan_of(table(EARLY), facts(EVERYTHING))
    assert (plan.entries[0].stage, plan.entries[0].reason) == (Stage.NIC_OFFLOAD, "")


def test_egress_is_raws() -> None:
    plan = plan_of(table(EARLY, egress=(EGRESS,)), facts(VETH))
    assert stages_of(plan) == {Stage.DRIVER: [EARLY.name], Stage.RAW: [EGRESS.name]}
    assert plan.entries[1].reason == "XDP sees received packets only"


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param(table(EARLY, endpoint=None), id="no endpoint governs it"),
        pytest.param(table(), id="no untracked entries"),
    ],
)
def test_interfaces_with_nothing_to_enforce_are_left_out(left_out: RuleTable) -> None:
    assert make_plan([left_out], facts(VETH, raw=NO), felix=FELIX) == Plan("jasper", ())


def test_without_a_raw_table_nothing_is_planned() -> None:
    with pytest.raises(UnsupportedKernelError, match="no backend for the raw table: iptables: the driver has none"):
        plan_of(table(EARLY), facts(VETH, raw=NO))


@pytest.mark.parametrize(
    ("rules", "felix", "choice", "wanted"),
    [
        pytest.param(table(EARLY), FELIX, ModeChoice.AUTO, True, id="an entry for XDP"),
        pytest.param(table(UNREAD, LATE), FELIX, ModeChoice.AUTO, False, id="none that comes first"),
        pytest.param(table(EARLY), XDP_OFF, ModeChoice.AUTO, False, id="XDP switched off"),
        pytest.param(table(EARLY), XDP_OFF, ModeChoice.NATIVE, True, id="switched off, but requested by name"),
        pytest.param(table(EARLY), FELIX, ModeChoice.RAW, False, id="raw requested"),
    ],
)
def test_interfaces_are_only_probed_for_xdp_when_the_answer_matters(
    rules: RuleTable, felix: FelixConfiguration, choice: ModeChoice, wanted: bool
) -> None:
    assert wants_xdp(XdpRun(rules), felix=felix, choice=choice) is wanted


def test_a_plan_as_json_names_every_entry_every_stage_and_every_reason() -> None:
    plan = make_plan([table(EARLY, UNREAD)], facts(VETH), felix=FELIX)
    (interface,) = plan_as_dict(plan)["interfaces"]
    assert interface["mode"] == "native"
    assert interface["modes_not_used"] == [{"mode": "offload", "reason": "the driver has none"}]
    assert interface["stages"] == {"driver": [EARLY.name], "raw": [UNREAD.name]}
    assert [(item["entry"], item["stage"], item["reason"]) for item in interface["entries"]] == [
        (EARLY.name, "driver", "offload: the driver has none"),
        (UNREAD.name, "raw", DCCP),
    ]


def test_every_mode_has_a_choice_and_every_choice_a_mode_or_none() -> None:
    assert [choice.mode for choice in ModeChoice] == [None, *Mode, None]
    assert [ModeChoice.of(mode) for mode in (*Mode, None)] == [choice for choice in ModeChoice if choice != "auto"]


# --- netdev ingress ---------------------------------------------------------------------------------------------------

NO_NFTABLES = Probe(Answer.NO, "the kernel has no such part of nf_tables")


def chained(rules: RuleTable, answer: Probe = UNKNOWN, **more: object) -> InterfacePlan:
    """The plan of an interface without XDP, with netdev ingress requested and this answer of its probe."""
    interface = InterfaceFacts("eth0", 2, modes=dict.fromkeys(Mode, NO), netdev_ingress=answer)
    # For mypy: of several types
    return plan_of(rules, HostFacts("jasper", interfaces=(interface,)), **{"netdev": True, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [YES, UNKNOWN], ids=["it may", "nobody knows"])
def test_netdev_ingress_takes_what_xdp_would(answer: Probe) -> None:
    plan = chained(table(EARLY, ALLOW, LATE, egress=(EGRESS,)), answer)
    assert (plan.mode, plan.early, plan.held, plan.xdp_entries) == (None, Stage.NETDEV_INGRESS, 3, ())
    assert plan.early_entries == (EARLY, ALLOW, LATE)
    assert [(item.stage, item.reason) for item in plan.entries] == [
        (Stage.NETDEV_INGRESS, "offload, native, generic: the driver has none"),
        (Stage.RAW, "netdev ingress lets its packets pass; only raw accepts untracked"),
        (Stage.NETDEV_INGRESS, "offload, native, generic: the driver has none"),
        (Stage.RAW, "netdev ingress sees received packets only"),
    ]
    assert plan_as_dict(Plan("jasper", (plan,)))["interfaces"][0]["netdev_ingress"] is True


def test_it_is_not_taken_unless_requested() -> None:
    assert chained(table(EARLY), YES, netdev=False).early is None


def test_where_there_is_xdp_it_is_not_taken() -> None:
    plan = plan_of(table(EARLY), facts(VETH), netdev=True)
    assert (plan.mode, plan.netdev, plan.early) == (Mode.NATIVE, False, Stage.DRIVER)


def test_it_is_taken_where_raw_was_requested_by_name() -> None:
    assert plan_of(table(EARLY), facts(VETH), choice=ModeChoice.RAW, netdev=True).netdev


def test_the_run_ends_where_that_of_xdp_would() -> None:
    plan = chained(table(EARLY, UNREAD, LATE))
    assert plan.early_entries == (EARLY,)
    assert [item.reason for item in plan.entries[1:]] == [
        DCCP.replace("XDP", "netdev ingress"),
        f"after {UNREAD.name}, which netdev ingress does not hold",
    ]


def test_without_a_deny_there_is_no_chain() -> None:
    assert not chained(table(ALLOW)).netdev


def test_an_interface_whose_packets_are_taken_says_so() -> None:
    plan = chained(table(EARLY), Probe(Answer.NO, "bridge br0 takes them"))
    assert (plan.netdev, plan.held) == (False, 0)
    assert plan.entries[0].reason == (
        "offload, native, generic: the driver has none; netdev-ingress: bridge br0 takes them"
    )


@pytest.mark.parametrize("modes", [OLD_NIC, VETH], ids=["where it would be used", "where it would not"])
def test_a_host_without_nftables_is_an_error(modes: Mapping[Mode, Probe]) -> None:
    host = HostFacts(
        "jasper",
        interfaces=(InterfaceFacts("eth0", modes=modes),),
        backends={Backend.IPTABLES: YES, Backend.NFTABLES: NO_NFTABLES},
    )
    with pytest.raises(UnsupportedKernelError) as caught:
        plan_of(table(EARLY), host, netdev=True)
    assert str(caught.value) == (
        "netdev-ingress was requested and is not possible on this host: the kernel has no such part of nf_tables; "
        "without --netdev-ingress raw drops everything"
    )
    assert caught.value.exit_code == 3
    assert plan_of(table(EARLY), host).netdev is False


def test_what_normal_policy_closes_is_listed() -> None:
    failsafes = (Failsafe(6, 22), Failsafe(17, 68, IPv4Network("10.0.0.0/8")))
    into = TrackedChain(Hook.INPUT, (TierChain("default", (EARLY, ALLOW)),), failsafes=failsafes, end=Action.DENY)
    forward = TrackedChain(Hook.FORWARD_IN)
    tracked = TrackedPlan(TrackedTable("eth0", "hep", (into, forward)), Backend.IPTABLES, enforced=True)
    plan = Plan("jasper", (), tracked=(tracked,))
    console = Console(file=io.StringIO(), width=200)
    print_plan(plan, console)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]  # of this subclass
        "eth0: HostEndpoint hep, normal policy enforced (iptables)",
        "  enforced at filter-input (filter INPUT): 1 tier, 2 entries; closes everything but what an entry allows and "
        "failsafes tcp/22, udp/68 of 10.0.0.0/8",
        "  enforced at filter-forward (filter FORWARD, received): 0 tiers, 0 entries; what no entry denies stays open",
    ]
    (item,) = plan_as_dict(plan)["tracked"]
    assert (item["interface"], item["endpoint"], item["enforced"], item["backend"]) == ("eth0", "hep", True, "iptables")
    assert item["chains"][0]["failsafes"] == ["tcp/22", "udp/68 of 10.0.0.0/8"]
    assert item["chains"][0]["tiers"] == [{"tier": "default", "entries": [EARLY.name, ALLOW.name], "default": "Deny"}]


def test_an_endpoint_that_only_tracked_policy_selects_is_named() -> None:
    tracked = RuleTable("eth0", "hep", tracked=(TrackedPolicy("gnp/web", ("filter INPUT",)),))
    plan = make_plan([tracked], facts(VETH), felix=FELIX)
    assert plan == Plan("jasper", (), (tracked,))
    (item,) = plan_as_dict(plan)["idle"]
    assert (item["interface"], item["endpoint"], item["tracked"][0]["policy"]) == ("eth0", "hep", "gnp/web")
    console = Console(file=io.StringIO(), width=200)
    print_plan(plan, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]  # of this subclass
    assert "no interface has untracked policy" in said
    assert "gnp/web is tracked policy: Calico enforces it at filter INPUT; not enforced (--tracked model)" in said

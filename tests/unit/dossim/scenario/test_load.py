"""Scenario files: what is accepted, and what is refused at which position, with all findings at once."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from dossim.model.disposition import Fate
from dossim.model.host import Listener
from dossim.scenario.find import scenario_files
from dossim.scenario.findings import InvalidScenario
from dossim.scenario.load import load_scenario
from dossim.scenario.model import (
    Bounds,
    CaptureTraffic,
    ConntrackExpectation,
    ConntrackTableExpectation,
    EntryExpectation,
    GeneratedTraffic,
    Generator,
    PacketExpectation,
)
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import CtState, Stage
from enforcer.policy.resources import PortRange

ROOT = Path(__file__).parents[4]
HOW_TO = ROOT / "scenarios" / "policies" / "how-to.yaml"

CONTRACT = f"""\
name: deny-listed NTP reflection is dropped in the driver
policy: [{HOW_TO}]
host: {{node: jasper, interface: eth0, addresses: [10.10.10.10], listen: [udp/9]}}
traffic:
  - {{capture: dns.pcap, label: attack}}
  - {{generate: udp-reflection, count: 2000, sources: 203.0.113.0/24, sport: 123, label: attack}}
  - {{generate: tcp-handshakes, count: 50, sources: 198.51.100.0/24, dport: [443, 8000-8080], label: legitimate}}
modes: [native, generic, raw]
expect:
  - {{label: attack, fate: dropped, at-or-before: raw, share: 1.0}}
  - {{label: legitimate, fate: delivered, share: {{at-least: 0.9}}, modes: [raw]}}
  - {{conntrack-entries: {{at-most: 60}}}}
  - {{entry: "gnp/dos-mitigation ingress[0]", packets: 2000}}
"""

SMALL = """\
name: a scenario
policy: []
traffic: [{generate: syn-flood, count: 1, sources: 203.0.113.1, destination: 10.0.0.1, label: attack}]
"""


def write(folder: Path, text: str, name: str = "it.scenario.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def findings(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(InvalidScenario) as caught:
        load_scenario(path)
    return [str(finding).replace(f"{path}:", "") for finding in caught.value.findings]


def test_the_contract_s_example_is_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "dns.pcap").write_bytes(b"")
    scenario = load_scenario(write(tmp_path, CONTRACT), allow=[HOW_TO.parent])
    assert scenario.name == "deny-listed NTP reflection is dropped in the driver"
    assert scenario.modes == (ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.RAW)
    assert (scenario.host.node, scenario.host.interface) == ("jasper", "eth0")
    assert scenario.host.addresses == (ip_interface("10.10.10.10/32"),)
    assert scenario.host.listen == (Listener(17, 9),)
    assert [item.name for item in scenario.resources.policies] == ["dos-mitigation"]
    capture, reflection, handshakes = scenario.traffic
    assert isinstance(capture, CaptureTraffic)
    assert capture.path == tmp_path / "dns.pcap"
    assert isinstance(reflection, GeneratedTraffic)
    assert reflection.generator is Generator.UDP_REFLECTION
    assert reflection.parameters.sources == (ip_network("203.0.113.0/24"),)
    assert reflection.parameters.sport == (PortRange(123, 123),)
    assert isinstance(handshakes, GeneratedTraffic)
    assert handshakes.parameters.dport == (PortRange(443, 443), PortRange(8000, 8080))


def test_an_expectation_of_conntrack_is_read_as_written(tmp_path: Path) -> None:
    row = "{state: {NEW: 1, INVALID: {at-most: 2}}, entries: {at-most: 60}, early-drop: 0, dropped: {at-least: 3}}"
    (found,) = load_scenario(write(tmp_path, SMALL + f"expect: [{{conntrack: {row}}}]\n")).expect
    assert found == ConntrackTableExpectation(
        {CtState.NEW: Bounds(1, 1), CtState.INVALID: Bounds(None, 2)},
        entries=Bounds(None, 60),
        early_drop=Bounds(0, 0),
        dropped=Bounds(3, None),
        position=found.position,
    )


def test_expectations_are_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "dns.pcap").write_bytes(b"")
    dropped, delivered, conntrack, entry = load_scenario(write(tmp_path, CONTRACT), allow=[HOW_TO.parent]).expect
    assert isinstance(dropped, PacketExpectation)
    assert (dropped.fate, dropped.at_or_before, dropped.share) == (Fate.DROPPED, Stage.RAW, Bounds(1.0, 1.0))
    assert dropped.position.line == 10
    assert isinstance(delivered, PacketExpectation)
    assert (delivered.share, delivered.modes) == (Bounds(0.9, None), (ModeChoice.RAW,))
    assert isinstance(conntrack, ConntrackExpectation)
    assert conntrack.entries == Bounds(None, 60)
    assert isinstance(entry, EntryExpectation)
    assert entry.packets == Bounds(2000, 2000)


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, SMALL))
    assert scenario.modes == (ModeChoice.AUTO,)
    assert scenario.expect == ()
    assert not scenario.slow
    assert scenario.tracked is TrackedChoice.MODEL


NORMAL = SMALL.replace("policy: []", f"policy: [{HOW_TO.with_name('normal-policy.yaml')}]")
TRACKED_ENTRIES = [
    "gnp/web ingress[0]",
    "tier/default ingress default",
    "no profile ingress",
    "conntrack INVALID egress",
]


@pytest.mark.parametrize("entry", TRACKED_ENTRIES)
def test_tracked_entries_exist_only_where_they_are_enforced(tmp_path: Path, entry: str) -> None:
    text = NORMAL + f"expect: [{{entry: '{entry}', packets: 0}}]\n"
    enforced = write(tmp_path, text + "tracked: enforce\n")
    assert load_scenario(enforced, allow=[HOW_TO.parent]).tracked is TrackedChoice.ENFORCE
    with pytest.raises(InvalidScenario, match="is of tracked policy, which drops nothing here"):
        load_scenario(write(tmp_path, text + "tracked: model\n"), allow=[HOW_TO.parent])


def test_an_entry_of_what_the_host_sends_drops_nothing_that_it_receives(tmp_path: Path) -> None:
    text = NORMAL + "tracked: enforce\nexpect: [{entry: 'gnp/web egress[0]', packets: 0}]\n"
    with pytest.raises(InvalidScenario, match="no entry is called 'gnp/web egress"):
        load_scenario(write(tmp_path, text), allow=[HOW_TO.parent])


def test_a_rule_that_cannot_be_enforced_is_found(tmp_path: Path) -> None:
    policy = (
        HOW_TO.with_name("normal-policy.yaml")
        .read_text()
        .replace("protocol: TCP", "http: {methods: [GET]}\n      protocol: TCP")
    )
    (tmp_path / "http.yaml").write_text(policy)
    text = SMALL.replace("policy: []", "policy: [http.yaml]") + "expect: [{entry: 'gnp/web ingress[0]', packets: 0}]\n"
    assert any(
        "tracked policy cannot be enforced with http" in item
        for item in findings(tmp_path, text + "tracked: enforce\n")
    )


def test_resources_may_be_written_inline_and_keep_their_lines(tmp_path: Path) -> None:
    text = """\
name: inline
policy:
  - apiVersion: projectcalico.org/v3
    kind: HostEndpoint
    metadata: {name: here}
    spec:
      node: jasper
      interfaceName: eth0
      expectedIPs: [10.0.0.1]
  - apiVersion: projectcalico.org/v3
    kind: GlobalNetworkPolicy
    metadata: {name: all}
    spec:
      doNotTrack: true
      applyOnForward: true
      ingress:
        - action: Deny
traffic: [{generate: syn-flood, count: 1, sources: 203.0.113.1, label: attack}]
"""
    path = write(tmp_path, text)
    scenario = load_scenario(path)
    rule = scenario.resources.policies[0].ingress[0]
    assert (rule.position.path, rule.position.line) == (str(path), 17)
    assert scenario.policy == (str(path),)


def test_a_fault_of_an_inline_resource_is_reported_at_its_line(tmp_path: Path) -> None:
    text = SMALL.replace(
        "policy: []",
        "policy:\n  - apiVersion: projectcalico.org/v3\n    kind: Tier\n    metadata: {name: a}\n"
        "    spec:\n      order: x",
    )
    (found,) = findings(tmp_path, text)
    assert found.startswith("7:")
    assert "spec.order: expected a number" in found


def test_a_resource_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    tier = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}, spec: {order: 1}}"
    (found,) = findings(tmp_path, SMALL.replace("policy: []", f"policy: [{tier}, {tier}]"))
    assert "policy: two resources are Tier a" in found


ROW = "{generate: syn-flood, count: 1, sources: 203.0.113.1, destination: 10.0.0.1, label: attack}"

REFUSED = [
    ("an unknown field", SMALL + "colour: red\n", "4:1: colour: unknown field"),
    ("a misspelt field", SMALL + "mode: [raw]\n", "4:1: mode: unknown field; did you mean 'modes'?"),
    ("a misspelt parameter", SMALL.replace("count", "cout"), "traffic[0].cout: unknown field; did you mean 'count'?"),
    ("a missing parameter", SMALL.replace("count: 1, ", ""), "3:11: traffic[0]: the field 'count' is missing"),
    ("a missing label", SMALL.replace(", label: attack", ""), "traffic[0]: the field 'label' is missing"),
    (
        "neither capture nor generator",
        SMALL.replace("generate: syn-flood, ", ""),
        "'generate' is missing; or 'capture'",
    ),
    ("a misspelt generator", SMALL.replace("syn-flood", "syn-flod"), "found \"syn-flod\"; did you mean 'syn-flood'?"),
    ("a misspelt mode", SMALL + "modes: [nativ]\n", "modes[0]: expected one of auto, native, generic, raw"),
    ("offload, which no lab has", SMALL + "modes: [offload]\n", 'found "offload"'),
    ("a mode twice", SMALL + "modes: [raw, raw]\n", "modes: an item is there twice"),
    (
        "no traffic",
        SMALL.replace(f"[{ROW}]", "[]"),
        "traffic: expected a list of captures and generators, found nothing",
    ),
    ("a count of nothing", SMALL.replace("count: 1", "count: 0"), "count: expected a number of 1 to 1000000, found 0"),
    ("a source that is none", SMALL.replace("203.0.113.1,", "nobody,"), "sources[0]: 'nobody' does not appear to be"),
    ("host bits", SMALL.replace("203.0.113.1,", "203.0.113.1/24,"), "has host bits set"),
    ("families that differ", SMALL.replace("10.0.0.1", "'fd00::1'"), "is IPv6; the source 203.0.113.1/32 is not"),
    ("ports backwards", SMALL.replace("count", "dport: 9-8, count"), "dport[0]: expected a range of ports"),
    ("a port too high", SMALL.replace("count", "dport: 70000, count"), "dport: expected a port, a range 'first-last'"),
    ("a listener that is none", SMALL + "host: {listen: [icmp/9]}\n", "listen[0]: expected a listener"),
    ("a listener's port too high", SMALL + "host: {listen: [udp/70000]}\n", "expected udp/PORT or tcp/PORT"),
    ("a route that is none", SMALL + "host: {routes: [everywhere]}\n", "host.routes[0]: 'everywhere'"),
    ("an unknown label", SMALL + "expect: [{label: atack, fate: dropped}]\n", "did you mean 'attack'?"),
    ("an unknown fate", SMALL + "expect: [{fate: lost}]\n", "expected one of delivered, forwarded, dropped"),
    ("a stage of a delivered packet", SMALL + "expect: [{fate: delivered, stage: raw}]\n", "only dropped packets end"),
    ("stage twice", SMALL + "expect: [{fate: dropped, stage: raw, at-or-before: raw}]\n", "not both"),
    ("a share above 1", SMALL + "expect: [{fate: dropped, share: 2}]\n", "expected a share of 0 to 1"),
    (
        "bounds that exclude all",
        SMALL + "expect: [{conntrack-entries: {at-least: 2, at-most: 1}}]\n",
        "nothing can hold",
    ),
    (
        "a state that is none",
        SMALL + "expect: [{conntrack: {state: {NWE: 1}}}]\n",
        "unknown field; did you mean 'NEW'?",
    ),
    ("a conntrack of nothing", SMALL + "expect: [{conntrack: {}}]\n", "expected a mapping with state, entries"),
    ("an unknown count", SMALL + "expect: [{conntrack: {drop: 1}}]\n", "did you mean 'dropped'?"),
    (
        "a negative count",
        SMALL + "expect: [{conntrack: {dropped: -1}}]\n",
        "expected a number, or at-least and at-most",
    ),
    (
        "conntrack bounds that exclude all",
        SMALL + "expect: [{conntrack: {state: {NEW: {at-least: 2, at-most: 1}}}}]\n",
        "conntrack.state.NEW: at-least is more than at-most",
    ),
    ("a mode it does not run", SMALL + "expect: [{fate: dropped, modes: [raw]}]\n", "does not run in mode raw"),
    ("an unknown entry", SMALL + "expect: [{entry: 'gnp/x ingress[0]', packets: 1}]\n", "no entry is called"),
    ("a capture that is not there", SMALL.replace(ROW, "{capture: no.pcap, label: a}"), "capture: no such file"),
    ("a key written twice", SMALL + "name: again\n", "4:1: name: written twice; the first is in line 1"),
    ("no address to send to", SMALL.replace("destination: 10.0.0.1, ", ""), "the host has no IPv4 address"),
    ("ARP over IPv6", SMALL.replace("syn-flood", "arp").replace("203.0.113.1", "'fd00::9'"), "ARP is for IPv4"),
    (
        "an expression that is none",
        SMALL.replace(ROW, "{generate: scapy, packet: IPP(), label: a}"),
        "no layer is called 'IPP'",
    ),
    ("no YAML", "name: [", "not YAML"),
    ("two documents", SMALL + "---\n" + SMALL, "expected one YAML document, found 2"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert any(message in found for found in findings(tmp_path, text)), findings(tmp_path, text)


def test_everything_wrong_is_found_at_once_and_in_file_order(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("kind: Tier\n")
    text = SMALL.replace("policy: []", "policy: [bad.yaml]").replace("count: 1", "count: no") + "modes: [rw]\n"
    found = findings(tmp_path, text)
    assert [line.split(": ")[1] for line in found if "bad.yaml" not in line] == ["traffic[0].count", "modes[0]"]
    assert any("bad.yaml" in line for line in found)


def test_the_policy_leaves_a_choice_to_the_scenario(tmp_path: Path) -> None:
    head = "{{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {{name: {0}}}, "
    endpoint = head + "spec: {{node: {0}, interfaceName: eth0}}}}"
    policy = f"policy: [{endpoint.format('a')}, {endpoint.format('b')}]"
    (found,) = findings(tmp_path, SMALL.replace("policy: []", policy))
    assert "2 nodes (a, b)" in found
    assert load_scenario(write(tmp_path, SMALL.replace("policy: []", policy) + "host: {node: b}\n")).host.node == "b"


def test_scenario_files_of_a_folder_come_in_order_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, SMALL, "b.scenario.yaml")
    write(tmp_path, SMALL, "a.scenario.yaml")
    write(tmp_path, SMALL, "policy.yaml")
    assert [path.name for path in scenario_files([tmp_path])] == ["a.scenario.yaml", "b.scenario.yaml"]


def test_a_folder_without_scenarios_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \*\.scenario\.yaml files"):
        scenario_files([tmp_path])


@pytest.mark.parametrize("path", scenario_files([ROOT / "scenarios"]), ids=lambda path: path.name)
def test_every_shipped_scenario_is_valid(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.expect, "a scenario that expects nothing shows nothing"


@pytest.mark.parametrize("share", [".nan", ".inf", "{at-least: .nan}"])
def test_a_share_is_a_number(tmp_path: Path, share: str) -> None:
    text = f"{SMALL}expect: [{{label: attack, fate: dropped, share: {share}}}]\n"
    assert "expect[0].share" in findings(tmp_path, text)[0]


@pytest.mark.parametrize("value", ["0x_", "0b_", "0o_", "1e999", "'0'", "1" * 399, "9" * 5000])
def test_odd_numbers_are_findings(tmp_path: Path, value: str) -> None:
    assert "traffic[0].count: expected" in findings(tmp_path, SMALL.replace("count: 1", f"count: {value}"))[0]


def test_a_whole_number_with_a_point_is_one(tmp_path: Path) -> None:
    (row,) = load_scenario(write(tmp_path, SMALL.replace("count: 1", "count: 3.0"))).traffic
    assert isinstance(row, GeneratedTraffic)
    assert type(row.parameters.count) is int


def test_a_fault_in_an_expression_is_pointed_at(tmp_path: Path) -> None:
    row = "{generate: scapy, label: attack, packet: 'IP(src=\"1.2.3.4\")/TPC()'}"
    (finding,) = findings(tmp_path, f"name: x\npolicy: []\ntraffic: [{row}]\n")
    first, text, caret = finding.splitlines()
    assert first == "3:52: traffic[0].packet: no layer is called 'TPC'; did you mean 'TCP'?"
    assert text[caret.index("^") :].startswith("TPC()")

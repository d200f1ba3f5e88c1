"""The ``dossim`` command as users see it: output, exit codes, error messages."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from dossim.cli import main
from dossim.cli.facts import facts_of, read_facts
from dossim.cli.plan import plan_of
from dossim.packet.capture import Capture
from dossim.scenario.generate import generate
from dossim.scenario.model import GeneratedTraffic, Generator, Parameters
from enforcer.cli.facts_view import facts_as_dict
from enforcer.model.choices import TrackedChoice
from enforcer.model.conntrack import ConntrackFacts, ConntrackStatistics, Timeout
from enforcer.model.facts import HostFacts, HostRules, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Backend, Mode
from enforcer.policy.load import load
from enforcer.policy.nodes import from_data
from tests.support.unusable import UNUSABLE

ROOT = Path(__file__).parents[3]
SCENARIOS = ROOT / "scenarios"
HOW_TO = str(SCENARIOS / "policies" / "how-to.yaml")


def dossim(*words: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Twelve SYNs: ten of deny-listed sources, two of others."""
    frames = [
        frame
        for count, source in ((10, "203.0.113.0/24"), (2, "198.51.100.0/24"))
        for frame in generate(
            GeneratedTraffic("x", Generator.SYN_FLOOD, Parameters(count=count, sources=(ip_network(source),))),
            {4: ip_address("10.10.10.10")},
        )
    ]
    path = tmp_path / "flood.pcap"
    Capture.from_frames(frames).write(path)
    return path


VERBS = ("validate", "lint", "plan", "selector", "explain", "predict", "drill", "run")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    result = dossim(verb, "--help")
    assert result.exit_code == 0
    assert f"dossim {verb}" in result.stdout.split("Example:")[1]


def test_nothing_heavy_is_imported_for_help() -> None:
    heavy = ("numpy", "scapy", "networkx", "jinja2", "jsonschema")
    code = f"import sys, dossim.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# --- validate ---------------------------------------------------------------------------------------------------------


def test_validate_names_an_address_list_and_takes_it_for_no_fault(tmp_path: Path) -> None:
    (tmp_path / "drop.txt").write_text("; a list\n198.51.100.0/25 ; X1\n")
    (tmp_path / "tier.yaml").write_text("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\n")
    result = dossim("validate", tmp_path)
    assert result.exit_code == 0
    assert f"note: {tmp_path}/drop.txt:2:1: a list of addresses, not a Calico resource: it enforces" in result.stdout
    assert dossim("validate", tmp_path / "drop.txt").exit_code == 0


def test_what_is_shipped_is_valid() -> None:
    result = dossim("validate", SCENARIOS)
    assert (result.exit_code, result.stderr) == (0, "")


def test_findings_are_lines_that_editors_understand(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: a}\nspec: {order: x}\n")
    scenario = tmp_path / "bad.scenario.yaml"
    scenario.write_text("name: x\npolicy: [bad.yaml]\ntraffic: []\n")
    result = dossim("validate", tmp_path)
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert f"{scenario}:3:10: traffic: expected a list of captures and generators, found nothing" in lines
    assert sum(line.startswith(f"{bad}:4:") for line in lines) == 1, "shared findings are listed once"


# --- selector ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "answer"), [(["a=b"], "true"), (["a=c"], "false"), ([], "false"), (["a="], "false")]
)
def test_a_selector_says_true_or_false(labels: list[str], answer: str) -> None:
    result = dossim("selector", "a == 'b'", *labels)
    assert result.exit_code == 0
    first, canonical, uid = result.stdout.splitlines()
    assert (first, canonical) == (answer, 'canonical: a == "b"')
    assert uid.startswith("uid: s:")


def test_a_selector_that_is_none_is_pointed_at() -> None:
    result = dossim("selector", "a == ")
    assert result.exit_code == 2
    message, text, caret = result.stderr.splitlines()
    assert "expected a string after '=='" in message
    assert (text, caret) == ("a == ", "     ^")


def test_labels_are_key_and_value() -> None:
    result = dossim("selector", "all()", "a")
    assert (result.exit_code, result.stderr) == (2, "error: expected KEY=VALUE, found 'a'\n")


@pytest.mark.parametrize("text", ["a == '\udcff'", "\ud800", "has(a\udcff)"])
def test_a_selector_that_is_not_utf_8_has_its_column(text: str) -> None:
    result = dossim("selector", text)
    assert result.exit_code == 2
    assert "which is no character: not UTF-8" in result.stderr
    answer = dossim("selector", "--batch", stdin=json.dumps({"selector": text}) + "\n")
    assert (answer.exit_code, set(json.loads(answer.stdout))) == (0, {"error", "column"})


def test_a_batch_goes_on_after_a_line_that_is_nested_too_deeply() -> None:
    result = dossim("selector", "--batch", stdin="[" * 200_000 + '\n{"selector": "all()"}\n')
    assert result.exit_code == 0
    assert [next(iter(json.loads(line))) for line in result.stdout.splitlines()] == ["error", "match"]


def test_a_batch_is_answered_line_by_line() -> None:
    questions = [
        {"selector": "a == 'b'", "labels": {"a": "b"}},
        {"selector": "a == 'b'"},
        {"selector": "a =="},
        {"labels": {}},
        {"selector": "all()", "labels": {"a": 1}},
    ]
    text = "".join(json.dumps(question) + "\n" for question in questions) + "nonsense\n"
    result = dossim("selector", "--batch", stdin=text)
    assert result.exit_code == 0
    yes, no, fault, *others = [json.loads(line) for line in result.stdout.splitlines()]
    assert (yes["match"], yes["canonical"], no["match"]) == (True, 'a == "b"', False)
    assert fault == {"error": "expected a string after '==', found end of input", "column": 5}
    assert [set(answer) for answer in others] == [{"error", "column"}] * 3


# --- plan -------------------------------------------------------------------------------------------------------------

FACTS = HostFacts(
    "jasper",
    kernel="6.18.0",
    backends={Backend.IPTABLES: Probe(Answer.YES)},
    conntrack=ConntrackFacts(
        max=65536,
        buckets=262144,
        count=1000,
        checksum=True,
        tcp_loose=True,
        timeouts={Timeout.UDP: 30, Timeout.TCP_SYN_RECV: 60, Timeout.TCP_SYN_SENT: 120},
        helpers=("nf_conntrack_ftp",),
        zones=(7,),
        statistics=ConntrackStatistics(dropped=5, early_drop=7),
        unknown=("nf_conntrack_tcp_be_liberal: Permission denied",),
    ),
    interfaces=(
        InterfaceFacts(
            "eth0",
            index=2,
            driver="e1000",
            addresses=(ip_address("10.10.10.10"), ip_address("fe80::1")),
            gateways=(ip_address("10.10.10.1"),),
            modes={
                Mode.OFFLOAD: Probe(Answer.NO, "no such hardware"),
                Mode.NATIVE: Probe(Answer.NO, "e1000 has no native XDP"),
                Mode.GENERIC: Probe(Answer.UNKNOWN, "not probed"),
            },
        ),
    ),
)


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.yaml"
    path.write_text(json.dumps(facts_as_dict(FACTS)))
    return path


def test_facts_survive_the_way_through_a_file(facts: Path) -> None:
    assert read_facts(facts) == FACTS


def test_a_plan_without_facts_says_what_it_assumes() -> None:
    result = dossim("plan", "-p", HOW_TO)
    assert result.exit_code == 0
    assert "without --host, interfaces are assumed" in result.stderr
    assert "driver" in result.stdout


def test_a_plan_gives_the_reason_of_every_fallback(facts: Path) -> None:
    result = dossim("plan", "-p", HOW_TO, "--host", facts)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "raw only" in result.stdout
    assert "not native: e1000 has no native XDP" in result.stdout


NORMAL = Path(HOW_TO).with_name("normal-policy.yaml")


@pytest.mark.parametrize(("choice", "is_enforced"), [("model", False), ("enforce", True)])
def test_a_plan_has_the_chains_of_tracked_policy(choice: str, is_enforced: bool) -> None:
    resources = load([NORMAL])
    made = plan_of(resources, FACTS, "jasper", "auto", tracked=TrackedChoice(choice))
    (tracked,) = made.tracked
    assert (tracked.interface, tracked.table.endpoint, tracked.enforced) == ("eth0", "web", is_enforced)
    assert dossim("plan", "-p", NORMAL, "--tracked", choice).exit_code == 0


def test_a_plan_needs_only_to_express_what_it_enforces(tmp_path: Path) -> None:
    path = tmp_path / "http.yaml"
    path.write_text(NORMAL.read_text().replace("protocol: TCP", "http: {methods: [GET]}\n      protocol: TCP"))
    assert dossim("plan", "-p", path).exit_code == 0
    result = dossim("plan", "-p", path, "--tracked", "enforce")
    assert result.exit_code == 2
    assert "gnp/web ingress[1]: tracked policy cannot be enforced with http" in result.stderr


def test_a_plan_says_what_fills_the_conntrack_table(facts: Path) -> None:
    lines = dossim("plan", "-p", HOW_TO, "--host", facts).stdout.splitlines()
    assert "conntrack: 65,536 entries, 1,000 in use, 262,144 buckets" in lines
    assert any(line.startswith("  fills above 2,151/s of UDP, 1,076/s of TCP SYN to an open port") for line in lines)
    assert "  assumed: nf_conntrack_ftp add no entries for expected connections" in lines
    assert "  assumed: generic_timeout 600 s: not read" in lines


def test_a_plan_at_a_rate_says_when_the_table_is_full(facts: Path) -> None:
    shown = dossim("plan", "-p", HOW_TO, "--host", facts, "--rate", 12000, "--format", "json").stdout
    flood = json.loads(shown)["conntrack"]["floods"]["UDP"]
    assert flood["fills"] == "yes"
    assert flood["full_after_s"]["most"] == pytest.approx((65536 - 1000) / 12000)
    assert 0.012 < flood["at_full"]["dropped"]["least"] < flood["at_full"]["dropped"]["most"] < 0.02


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "1e3", ""])
def test_a_rate_is_a_number_of_flows(rate: str) -> None:
    result = dossim("plan", "-p", HOW_TO, "--rate", rate)
    assert result.exit_code == 2
    assert "--rate" in result.stderr


def test_predict_says_what_the_capture_does_to_the_conntrack_table(capture: Path, facts: Path) -> None:
    """Ten of its twelve SYNs are denied before conntrack; the port of the other two is open."""
    options = (capture, "-p", HOW_TO, "--host", facts, "--listen", "tcp/80", "--rate", 5000)
    shown = dossim("predict", *options).stdout
    assert "conntrack: 65,536 entries, 1,000 in use, 262,144 buckets; 2 new flows (2 TCP SYN to an open port)" in shown
    assert "if it goes on: 5,000 new flows/s: full after 12.9 s" in shown
    found = json.loads(dossim("predict", *options, "-o", "json").stdout)["conntrack"]
    assert (found["reached"], found["new_flows"]) == (2, {"TCP SYN to an open port": 2})
    assert found["capture_once"]["over"] == 0


def test_predict_without_the_size_of_the_table_cannot_tell(capture: Path, tmp_path: Path) -> None:
    path = tmp_path / "older.yaml"
    path.write_text(json.dumps({key: value for key, value in facts_as_dict(FACTS).items() if key != "conntrack"}))
    result = dossim("predict", capture, "-p", HOW_TO, "--host", path)
    assert result.exit_code == 0
    assert "conntrack: cannot tell whether the table fills: nf_conntrack_max and nf_conntrack_buckets" in result.stdout


def test_a_plan_as_json(facts: Path) -> None:
    plan = json.loads(dossim("plan", "-p", HOW_TO, "--host", facts, "--format", "json").stdout)
    assert plan["interfaces"][0]["entries"][0]["stage"] == "raw"


@pytest.mark.parametrize(("form", "line"), [
    ("mermaid", '    raw["<b>raw</b><br/>eth0: Deny gnp/dos-mitigation ingress[0]"]:::enforcing'),
    ("dot", '    "raw" [penwidth=3, label="raw\\neth0: Deny gnp/dos-mitigation ingress[0]"];'),
])  # fmt: skip
def test_a_plan_as_a_drawing(facts: Path, form: str, line: str) -> None:
    assert line in dossim("plan", "-p", HOW_TO, "--host", facts, "--format", form).stdout.splitlines()


EARLY_DENY = "eth0: Deny gnp/web ingress[0]"


@pytest.mark.parametrize(("choice", "form", "begins", "style"), [
    ("model", "mermaid", f"{EARLY_DENY} (Calico, not enforced here)<br/>", '"]:::modelled'),
    ("model", "dot", f"{EARLY_DENY} (Calico, not enforced here)\\n", '"filter-input" [style=dashed, '),
    ("enforce", "mermaid", f"{EARLY_DENY}<br/>", '"]:::enforcing'),
    ("enforce", "dot", f"{EARLY_DENY}\\n", '"filter-input" [penwidth=3, '),
])  # fmt: skip
def test_a_drawing_has_tracked_policy_and_whether_it_is_enforced(
    choice: str, form: str, begins: str, style: str
) -> None:
    lines = dossim("plan", "-p", NORMAL, "--tracked", choice, "--format", form).stdout.splitlines()
    (found,) = [line for line in lines if EARLY_DENY in line]
    assert begins in found
    assert style in found


def test_a_plan_says_what_calico_would_enforce_and_what_is_enforced() -> None:
    shown = {
        choice: dossim("plan", "-p", NORMAL, "--tracked", choice).stdout.splitlines() for choice in ("model", "enforce")
    }
    rest = (
        "at filter-input (filter INPUT): 1 tier, 2 entries; closes everything but what an entry allows and failsafes "
    )
    assert (
        "eth0: HostEndpoint web, normal policy not enforced here (tracked: model); what Calico would do"
        in (shown["model"])
    )
    for choice, verb in (("model", "Calico would enforce"), ("enforce", "enforced")):
        assert [text for text in shown[choice] if text.startswith(f"  {verb} {rest}tcp/22, ")]
    assert not [text for text in shown["model"] if text.startswith("  enforced at")]


def test_a_plan_says_which_tracked_rule_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "http.yaml"
    path.write_text(NORMAL.read_text().replace("protocol: TCP", "http: {methods: [GET]}\n      protocol: TCP"))
    said = dossim("plan", "-p", path).stdout
    assert "  not all of it is known: " in said
    assert "tracked policy cannot be enforced with http" in said


def test_a_plan_of_an_unknown_node_says_so() -> None:
    result = dossim("plan", "-p", HOW_TO, "--node", "jaspr")
    assert result.exit_code == 0
    assert "note: --node jaspr: the policy has no HostEndpoint of that node, only of jasper" in result.stderr


def test_a_plan_for_facts_of_another_node_says_so(facts: Path, tmp_path: Path) -> None:
    assert "no HostEndpoint of that node" not in dossim("plan", "-p", HOW_TO, "--host", facts).stderr
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(facts_as_dict(replace(FACTS, node="opal"))))
    said = dossim("plan", "-p", HOW_TO, "--host", other).stderr
    assert (
        f"note: {other}: node opal: the policy has no HostEndpoint of that node, only of jasper; see --node\n" in said
    )


def test_facts_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("interfaces: 3\n")
    result = dossim("plan", "-p", HOW_TO, "--host", path)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: {path}:1:1: node: this field is required and absent; "
        "expected the output of 'enforcer probe -o yaml' (or json)",
        f"error: {path}:1:13: interfaces: expected a list, found the number 3",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 5000,
        "user: hunter2: {[",
        "node: x\n---\nnode: y\n",
        "node: [1]\ninterfaces: []\n",
        "node: x\ninterfaces: [5]\n",
        "node: x\ninterfaces: [{name: eth0, mtu: .nan}]\n",
        "node: x\ninterfaces: [{name: eth0, addresses: [5]}]\n",
        "node: x\ninterfaces: [{name: eth0, alternative_names: lan}]\n",
        "node: x\ninterfaces: [{name: eth0, modes: {native: {answer: [1]}}}]\n",
        "node: x\ninterfaces: [{name: eth0, modes: {natvie: {answer: true}}}]\n",
        "node: x\nbackends: {iptables: {answer: maybe}}\ninterfaces: []\n",
        "node: x\nhost_rules: {iptables: many}\ninterfaces: []\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nnode: x\ninterfaces: *b\n",
    ],
)
@pytest.mark.parametrize("verb", [("plan", "-p", HOW_TO), ("lint", HOW_TO)])
def test_facts_that_are_wrong_are_refused_by_their_place(tmp_path: Path, verb: tuple[object, ...], text: str) -> None:
    path = tmp_path / "facts.yaml"
    path.write_text(text)
    result = dossim(*verb, "--host", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert all(each.startswith(f"error: {path}:") for each in result.stderr.splitlines())
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize("kind", UNUSABLE)
def test_facts_are_in_a_regular_file_of_some_size(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "facts.yaml"
    UNUSABLE[kind](path)
    result = dossim("plan", "-p", HOW_TO, "--host", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.lower().count("error: ") == 1


def test_facts_name_the_tables_that_kubernetes_uses(tmp_path: Path) -> None:
    """With them ``plan`` selects the same raw backend as ``apply`` on the host."""
    both = {Backend.IPTABLES: Probe(Answer.YES), Backend.NFTABLES: Probe(Answer.YES)}
    known = replace(FACTS, backends=both, rules=HostRules(legacy=9, nft=1, kubernetes=Backend.NFTABLES))
    path = tmp_path / "facts.yaml"
    path.write_text(json.dumps(facts_as_dict(known)))
    assert read_facts(path) == known
    assert "(nftables: Kubernetes uses nf_tables" in dossim("plan", "-p", HOW_TO, "--host", path).stdout


@pytest.mark.parametrize("name", ["1e3", "y", "0o17", "yes", "null", "1:30", "1_000"])
def test_facts_of_a_name_that_yaml_libraries_do_not_agree_on(tmp_path: Path, name: str) -> None:
    """PyYAML, which prints them, quotes fewer strings than Calico's library needs."""
    path = tmp_path / "facts.yaml"
    named = replace(FACTS, node=name, interfaces=(replace(FACTS.interfaces[0], name=name),))
    path.write_text(yaml.safe_dump(facts_as_dict(named)))
    assert read_facts(path) == named


def test_a_mode_that_is_not_possible_is_the_host_s_lack(facts: Path) -> None:
    result = dossim("plan", "-p", HOW_TO, "--host", facts, "--mode", "native")
    assert result.exit_code == 3
    assert "mode 'native' is not possible: e1000 has no native XDP" in result.stderr


def test_netdev_ingress_is_planned_on_request(facts: Path) -> None:
    result = dossim("plan", "-p", HOW_TO, "--host", facts, "--netdev-ingress")
    assert result.exit_code == 0
    assert "enforced at netdev-ingress, then raw (iptables: " in result.stdout
    assert "netdev-ingress" not in dossim("plan", "-p", HOW_TO, "--host", facts).stdout


def test_facts_about_netdev_ingress_are_read_back(tmp_path: Path) -> None:
    """Facts from an older enforcer do not contain it, and are accepted."""
    taken = replace(FACTS.interfaces[0], netdev_ingress=Probe(Answer.NO, "bridge br0 takes its packets"))
    data = facts_as_dict(replace(FACTS, interfaces=(taken,)))
    assert facts_of(from_data(data), "facts").interfaces == (taken,)
    del data["interfaces"][0]["netdev_ingress"]
    assert facts_of(from_data(data), "facts") == FACTS
    (tmp_path / "taken.json").write_text(json.dumps(facts_as_dict(replace(FACTS, interfaces=(taken,)))))
    result = dossim("plan", "-p", HOW_TO, "--host", tmp_path / "taken.json", "--netdev-ingress")
    assert "netdev-ingress: bridge br0 takes its packets" in result.stdout


def test_a_host_without_nf_tables_lacks_netdev_ingress(tmp_path: Path) -> None:
    without = replace(FACTS, backends={**FACTS.backends, Backend.NFTABLES: Probe(Answer.NO, "no such module")})
    (tmp_path / "without.json").write_text(json.dumps(facts_as_dict(without)))
    words = ("plan", "-p", HOW_TO, "--host", tmp_path / "without.json")
    result = dossim(*words, "--netdev-ingress")
    assert result.exit_code == 3
    assert "netdev-ingress was requested and is not possible on this host: no such module" in result.stderr
    assert dossim(*words).exit_code == 0


# --- explain ----------------------------------------------------------------------------------------------------------


def test_a_packet_is_explained_at_netdev_ingress() -> None:
    packet = 'IP(src="203.0.113.9")/TCP(dport=80)'
    result = dossim("explain", "-p", HOW_TO, packet, "--mode", "raw", "--netdev-ingress")
    assert result.exit_code == 0
    assert "dropped at netdev-ingress by gnp/dos-mitigation ingress[0] (blocked, as the policy says)" in result.stdout


def test_a_packet_is_explained_down_to_the_line_of_yaml() -> None:
    result = dossim("explain", "-p", HOW_TO, 'IP(src="203.0.113.9")/TCP(dport=80)')
    assert result.exit_code == 0
    assert "dropped at driver by gnp/dos-mitigation ingress[0] (blocked, as the policy says)" in result.stdout
    assert "how-to.yaml:36" in result.stdout
    assert "- action: Deny" in result.stdout


EGRESS = """
kind: List
apiVersion: v1
items:
  - apiVersion: projectcalico.org/v3
    kind: HostEndpoint
    metadata: {name: h, labels: {role: edge}}
    spec: {node: jasper, interfaceName: eth0, expectedIPs: [10.10.10.10]}
  - apiVersion: projectcalico.org/v3
    kind: GlobalNetworkPolicy
    metadata: {name: out}
    spec:
      doNotTrack: true
      applyOnForward: true
      types: [Egress]
      egress:
        - {action: Log}
        - {action: Deny, destination: {nets: [203.0.113.0/24]}}
        - {action: Allow, protocol: UDP}
  - apiVersion: projectcalico.org/v3
    kind: GlobalNetworkPolicy
    metadata: {name: tracked}
    spec: {types: [Egress], egress: [{action: Allow}]}
"""


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        ('IP(dst="203.0.113.9")/TCP(dport=80)', ["dropped at raw by gnp/out egress[1]", "<stdin>:18:11"]),
        (
            'IP(dst="8.8.8.8")/UDP(dport=99, sport=9)',
            ["not tracked", "accept mark", "sent", "logged by gnp/out egress[0]"],
        ),
        ('IP(dst="8.8.8.8")/TCP(dport=99)', ["no rule decides", "Calico: N5: gnp/tracked egress[0] ", "sent"]),
        ('IP(dst="203.0.113.9")/UDP(dport=53)', ["failsafe udp/53 applies", "sent"]),
        ('IPv6(src="fd00::1", dst="2001:db8::1")/UDP(dport=9, sport=9)', ["not tracked", "sent"]),
    ],
)
def test_a_packet_the_host_sends_is_explained(packet: str, said: list[str]) -> None:
    result = dossim("explain", "-p", "-", "--egress", packet, stdin=EGRESS)
    assert result.exit_code == 0, result.output
    assert [text for text in said if text not in result.stdout] == []


def test_what_raw_output_never_sees_is_not_explained() -> None:
    result = dossim("explain", "-p", "-", "--egress", 'ARP(psrc="10.0.0.1", pdst="10.0.0.2")', stdin=EGRESS)
    assert result.exit_code == 2
    assert "not an IP packet" in result.stderr


def test_a_packet_is_explained_as_json() -> None:
    packet = 'IP(src="203.0.113.9")/UDP(sport=53, dport=9)'
    found = json.loads(dossim("explain", "-p", HOW_TO, packet, "--mode", "raw", "-o", "json").stdout)
    assert (found["schema"], found["fate"], found["entry"]) == ("dossim/explain/v1", "delivered", None)
    assert "failsafe udp/53" in next(hop["result"] for hop in found["hops"] if hop["stage"] == "raw")


def test_packets_of_a_capture_count_from_0(capture: Path) -> None:
    assert "203.0.113." in dossim("explain", "-p", HOW_TO, f"{capture}#0").stdout
    last = dossim("explain", "-p", HOW_TO, f"{capture}#11")
    assert "198.51.100." in last.stdout
    assert last.stdout.rstrip().splitlines()[-2:] == [
        "delivered",
        "not enforced here (tracked: model): with Calico it would be dropped at filter-input by no profile ingress",
    ]


@pytest.mark.parametrize(("packet", "message"), [
    ("{capture}#12", "the capture holds 12 packets, 0 to 11"),
    ("{capture}", "packet number missing; {capture}#0 is the first packet"),
    ("{capture}#x", "{capture}#x: expected the number of a packet after '#', found 'x'; 0 is the first"),
    ("missing.pcap#0", "missing.pcap: cannot be read"),
    ('IPP(src="1.2.3.4")', "did you mean 'IP'?"),
    ("17", "not a packet"),
])  # fmt: skip
def test_a_packet_that_is_none(capture: Path, packet: str, message: str) -> None:
    result = dossim("explain", "-p", HOW_TO, packet.format(capture=capture))
    assert result.exit_code == 2
    assert message.format(capture=capture) in result.stderr


# --- predict ----------------------------------------------------------------------------------------------------------


def test_a_prediction_names_the_entry_and_its_line(capture: Path) -> None:
    result = dossim("predict", capture, "-p", HOW_TO)
    assert result.exit_code == 0
    assert "12 packets: predicted only" in result.stdout
    assert "10 packets would be blocked by gnp/dos-mitigation ingress[0]" in result.stdout


@pytest.mark.parametrize("report", ["--json", "--csv", "--parquet"])
def test_an_empty_name_is_no_wish_for_no_report(capture: Path, report: str) -> None:
    result = dossim("predict", capture, "-p", HOW_TO, report, "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "empty value; expected a path" in result.stderr


def test_two_reports_do_not_go_into_one_file(capture: Path, tmp_path: Path) -> None:
    path = tmp_path / "both"
    result = dossim("predict", capture, "-p", HOW_TO, "--json", path, "--csv", path)
    assert (result.exit_code, path.exists()) == (2, False)
    assert f"only one report can go into {path}" in result.stderr


@pytest.mark.parametrize("option", ["--node", "--interface"])
def test_an_empty_name_is_not_the_default(capture: Path, option: str) -> None:
    result = dossim("predict", capture, "-p", HOW_TO, option, "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "empty value; omit the option to use its default" in result.stderr
    assert dossim("plan", "-p", HOW_TO, "--node", "").exit_code == dossim("lint", "").exit_code == 2


def test_json_has_stdout_for_itself(capture: Path) -> None:
    found = json.loads(dossim("predict", capture, "-p", HOW_TO, "--json", "-").stdout)
    assert found["stages"] == {"driver": {"predicted": 10}, "delivered": {"predicted": 2}}


def test_csv_has_a_row_for_each_packet(capture: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "packets.csv"
    assert dossim("predict", capture, "-p", HOW_TO, "--mode", "raw", "--csv", path).exit_code == 0
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["packet"] for row in rows] == [str(number) for number in range(12)]
    assert [row["stage"] for row in rows] == ["raw"] * 10 + [""] * 2
    assert rows[0]["entry"] == "gnp/dos-mitigation ingress[0]"
    assert {(row["others"], row["depends"]) for row in rows} == {("", "")}


def test_parquet_has_the_rows_of_csv(capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in more than one row group."""
    monkeypatch.setattr("dossim.cli.packet_rows._ROW_GROUP", 5)
    table, columns = tmp_path / "packets.csv", tmp_path / "packets.parquet"
    given = ("predict", capture, capture, "-p", HOW_TO)
    assert dossim(*given, "--csv", table, "--parquet", columns).exit_code == 0
    rows = [list(row.values()) for row in csv.DictReader(io.StringIO(table.read_text()))]
    from pyarrow import parquet  # here, because it starts a thread

    file = parquet.ParquetFile(columns)
    assert file.metadata.num_row_groups == 2
    assert [[str(cell) for cell in row.values()] for row in file.read().to_pylist()] == rows
    assert sorted(tmp_path.glob("*packets*")) == [table, columns], "no temporary file is left"


def test_csv_and_json_have_every_possible_end(tmp_path: Path) -> None:
    """The acknowledgement of a SYN+ACK that the capture does not have: whether its number fits is the host's choice."""
    syn, ack = (
        IP(src="198.51.100.7", dst="10.10.10.10") / TCP(sport=40000, dport=443, flags=flags, seq=seq, ack=77)
        for flags, seq in (("S", 1000), ("A", 1001))
    )
    path, table = tmp_path / "handshake.pcap", tmp_path / "packets.csv"
    wrpcap(str(path), [Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet for packet in (syn, ack)])
    given = ("predict", path, "-p", NORMAL, "--tracked", "enforce", "--listen", "tcp/443")
    result = dossim(*given, "--csv", table, "-o", "json")
    assert result.exit_code == 0, result.output
    first, second = csv.DictReader(io.StringIO(table.read_text()))
    assert (first["fate"], first["others"]) == ("delivered", "")
    assert second["fate"] == "delivered"
    assert second["others"] == "dropped at filter-input by conntrack INVALID ingress"
    isn = "the initial sequence number that the host chose for this connection"
    assert second["depends"] == isn
    assert json.loads(result.stdout)["sets"] == {"packets": 1, "reasons": {isn: 1}}


def test_facts_of_the_host_decide_the_stage(capture: Path, facts: Path) -> None:
    found = json.loads(dossim("predict", capture, "-p", HOW_TO, "--host", facts, "-o", "json").stdout)
    assert found["host"]["mode"] == "raw"


def test_parquet_without_its_package_says_so(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dossim.cli.packet_rows.find_spec", lambda name: None)
    result = dossim("predict", capture, "-p", HOW_TO, "--parquet", "x.parquet")
    assert result.exit_code == 3
    assert "pyarrow" in result.stderr


def test_two_reports_cannot_share_stdout(capture: Path) -> None:
    result = dossim("predict", capture, "-p", HOW_TO, "--json", "-", "--csv", "-")
    assert (result.exit_code, result.stderr) == (2, "error: only one report can go to stdout (-)\n")


@pytest.mark.parametrize(("options", "message"), [
    (["--address", "here"], "--address: 'here' does not appear to be"),
    (["--listen", "9"], "--listen: expected udp/PORT or tcp/PORT"),
    (["--mode", "fast"], "'fast' is not one of"),
])  # fmt: skip
def test_options_that_make_no_sense(capture: Path, options: list[str], message: str) -> None:
    result = dossim("predict", capture, "-p", HOW_TO, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_that_is_no_capture() -> None:
    result = dossim("predict", HOW_TO, "-p", HOW_TO)
    assert result.exit_code == 2
    assert "not a capture" in result.stderr


def test_host_options_reach_the_host(capture: Path) -> None:
    result = dossim("predict", capture, "-p", HOW_TO, "--address", "10.9.9.9/24", "--mode", "raw", "-o", "json")
    assert json.loads(result.stdout)["stages"] == {"raw": {"predicted": 10}, "route": {"predicted": 2}}


# --- run --------------------------------------------------------------------------------------------------------------


def test_a_run_of_predictions(tmp_path: Path) -> None:
    path = SCENARIOS / "syn-flood.scenario.yaml"
    html = tmp_path / "deep" / "report.html"
    result = dossim("run", path, "--predict-only", "--mode", "raw", "--html", html)
    assert result.exit_code == 0
    assert "attack: all dropped at raw: 2,000 of 2,000 packets" in result.stdout
    assert result.stdout.rstrip().endswith(f"report: {html}")
    assert html.read_text().startswith("<!DOCTYPE html>")


def test_a_failed_expectation_is_exit_1(tmp_path: Path) -> None:
    path = tmp_path / "x.scenario.yaml"
    text = (SCENARIOS / "syn-flood.scenario.yaml").read_text().replace("policies/", f"{SCENARIOS}/policies/")
    path.write_text(text.replace("fate: dropped, stage: raw", "fate: delivered"))
    result = dossim("run", path, "--predict-only", "--mode", "raw", "--allow-path", SCENARIOS)
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    assert f"{path}:" in result.stdout


def test_without_privilege_the_run_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from enforcer.model.errors import PrivilegeError

    def refuse(*_: object, **__: object) -> None:
        raise PrivilegeError("creating a network namespace needs CAP_SYS_ADMIN; run as root")

    monkeypatch.setattr("dossim.scenario.run.drill_capture", refuse)
    result = dossim("run", SCENARIOS / "syn-flood.scenario.yaml")
    assert result.exit_code == 3
    assert result.stderr.count("without enforcement, replay and observation") == 1
    assert "3 items: 3 held, 0 failed; 0 drilled" in result.stdout


def test_a_run_as_json_is_nothing_else() -> None:
    result = dossim("run", SCENARIOS / "syn-flood.scenario.yaml", "--predict-only", "-o", "json")
    assert [item["mode"] for item in json.loads(result.stdout)["items"]] == ["native", "generic", "raw"]


def test_a_mode_that_no_scenario_has() -> None:
    result = dossim("run", SCENARIOS / "demo.scenario.yaml", "--predict-only", "--mode", "raw")
    assert (result.exit_code, result.stderr) == (2, "error: no scenario has the mode raw\n")


def test_all_findings_of_all_scenarios_come_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.scenario.yaml").write_text("name: x\n")
    result = dossim("run", tmp_path)
    assert result.exit_code == 2
    assert len([line for line in result.stderr.splitlines() if "is missing" in line]) == 4

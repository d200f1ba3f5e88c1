"""Sources of resources: files, directories, standard input, text, data; and input that is not a document."""

from __future__ import annotations

import io
import json
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import pytest

from enforcer.model.errors import PolicyError, Position
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action
from enforcer.policy import schema
from enforcer.policy.load import load, load_documents, load_node, load_text
from enforcer.policy.nodes import from_text
from enforcer.policy.validate import KINDS
from tests.unit.enforcer.policy.documents import HOW_TO, document, faults, findings

SET = document("GlobalNetworkSet", "nets: [10.0.0.0/8]")


def named_set(name: str) -> str:
    return document("GlobalNetworkSet", "nets: []", f"{{name: {name}}}")


def test_the_how_to_loads_unedited() -> None:
    resources = load_text(HOW_TO, "dos.yaml")
    endpoint, policy = resources.host_endpoints[0], resources.policies[0]
    assert (endpoint.node, endpoint.interface_name) == ("jasper", "eth0")
    assert endpoint.expected_ips == (IPv4Address("10.10.10.10"),)
    assert endpoint.labels == {"apply-dos-mitigation": "true"}
    assert resources.global_network_sets[0].nets == Nets.of(["203.0.113.0/24", "2001:db8::/32"])
    assert policy.do_not_track
    assert policy.apply_on_forward
    assert policy.ingress[0].action is Action.DENY
    assert policy.ingress[0].source.selector == "dos-deny-list == 'true'"


def test_resources_and_rules_know_where_they_stand() -> None:
    policy = load_text(HOW_TO, "dos.yaml").policies[0]
    assert policy.position == Position("dos.yaml", 23, 1)
    assert policy.ingress[0].position == Position("dos.yaml", 34, 7)


def test_directories_are_walked_without_hidden_and_scenario_files(tmp_path: Path) -> None:
    for path, name in (
        ("b.yaml", "b"),
        ("a.yml", "a"),
        ("deep/er/c.json", "c"),
        (".hidden.yaml", "hidden"),
        ("..data/b.yaml", "b"),
        ("d.scenario.yaml", "d"),
        ("notes.txt", "notes"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(named_set(name))
    assert [item.name for item in load([tmp_path]).global_network_sets] == ["a", "b", "c"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SET)
    assert len(load([tmp_path / "a.yaml", str(tmp_path), tmp_path / "." / "a.yaml"]).global_network_sets) == 1


def test_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(SET.encode())))
    assert load(["-"]).global_network_sets[0].position.path == "<stdin>"


def test_json_is_yaml() -> None:
    data = {"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "t"}, "spec": {"order": 1e2}}
    assert load_text(json.dumps(data, indent=1)).tiers[0].order == 100


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + SET.encode())
    assert load([tmp_path]).global_network_sets


def test_the_crd_form_as_kubectl_prints_it() -> None:
    text = """\
        apiVersion: v1
        kind: List
        metadata: {resourceVersion: ""}
        items:
        - apiVersion: crd.projectcalico.org/v1
          kind: GlobalNetworkSet
          metadata:
            annotations: {projectcalico.org/metadata: '{"creationTimestamp":null}'}
            creationTimestamp: "2024-01-01T00:00:00Z"
            generation: 1
            labels: {deny: "yes"}
            managedFields: [{manager: kubectl}]
            name: bad
            resourceVersion: "17"
            uid: 5f0e
          spec: {nets: [192.0.2.1]}
          status: {}
        """
    found = load_text(text).global_network_sets[0]
    assert (found.name, found.labels, found.nets) == ("bad", {"deny": "yes"}, Nets.of(["192.0.2.1/32"]))


def test_items_of_a_typed_list_need_no_kind() -> None:
    text = "apiVersion: projectcalico.org/v3\nkind: TierList\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]"
    assert [tier.name for tier in load_text(text).tiers] == ["a", "b"]


def test_a_sequence_of_resources_is_read_as_calicoctl_reads_it() -> None:
    assert load_text("- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}").tiers[0].name == "a"


def test_aliases_and_merge_keys() -> None:
    text = document("GlobalNetworkPolicy", """\
        ingress:
        - &deny {action: Deny, source: {nets: [10.0.0.0/8]}}
        - *deny
        - {<<: *deny, action: Allow}""")  # fmt: skip
    rules = load_text(text).policies[0].ingress
    assert [str(rule.action) for rule in rules] == ["Deny", "Deny", "Allow"]
    assert len({rule.source for rule in rules}) == 1


def test_other_kinds_are_named_once_and_skipped() -> None:
    other = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {anything: [goes]}\n"
    resources = load_text("---\n".join([other, SET, other, other.replace("IPPool", "StagedGlobalNetworkPolicy")]))
    assert resources.skipped == ("IPPool", "StagedGlobalNetworkPolicy")
    assert len(resources.global_network_sets) == 1


def test_empty_documents_between_others_are_no_fault() -> None:
    assert load_text(f"---\n---\n# nothing\n---\n{SET}---\n").global_network_sets


def test_plain_data_has_no_lines() -> None:
    data = {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet", "metadata": {"name": "a"}, "spec": {}}
    assert load_documents([data]).global_network_sets[0].position == Position("<inline>")
    with pytest.raises(PolicyError) as caught:
        load_documents([data | {"spec": {"nets": ["x"]}}, data | {"spec": {"nets": {1, 2}}}], "etcd")
    assert [str(finding) for finding in caught.value.findings] == [
        "etcd: spec.nets[0]: expected an IP address or CIDR, found 'x'",
        "etcd: found a set; expected what JSON can hold",
    ]


def test_a_node_within_a_larger_document_keeps_its_lines() -> None:
    (root,) = from_text("a:\n- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}}")
    # For mypy: not None here
    assert load_node(root.fields["a"], "s.yaml").tiers[0].position == Position("s.yaml", 2, 3)  # type: ignore[union-attr]


# --- input that is not a document
# ----------------------------------------------------------------------------------------------

NO_DOCUMENT: list[tuple[str, str, int, int, str]] = [
    ("empty", "", 0, 0, "holds no resource"),
    ("a comment only", "# later\n", 0, 0, "holds no resource"),
    ("null only", "---\n~\n", 0, 0, "holds no resource"),
    ("an unclosed list", "a: [1,\n", 2, 1, "not YAML: while parsing a flow node"),
    ("a tab for indentation", "a:\n\tb: 1\n", 2, 1, "not YAML: "),
    ("two mappings in a line", "a: b: c\n", 1, 5, "not YAML: mapping values are not allowed"),
    ("a control character", "a: 1\nb: \x01\n", 2, 4, "found the character '\\x01'"),
    ("an unknown alias", "a: *b\n", 1, 4, "the alias *b names nothing"),
    ("an alias within what it names", "a: &a [*a]\n", 1, 8, "the alias *a names nothing that is complete"),
    ("a foreign tag", "a: !!python/name:os.system x\n", 1, 4, "is not valid in a resource"),
    ("a mapping as key", "? {a: b}\n: c\n", 1, 3, "a field name must be a string, found a mapping"),
    ("deeper than 100 levels", "[\n" * 200, 101, 1, "nested deeper than 100 levels"),
    ("deeper than 100 levels in blocks", "- " * 200_000, 1, 201, "nested deeper than 100 levels"),
    ("a string", "hello\n", 1, 1, "expected a resource with apiVersion, kind, metadata and spec, found the string"),
    ("no apiVersion", "kind: Tier\n", 1, 1, "this field is required and absent"),
    ("no kind", "apiVersion: projectcalico.org/v3\n", 1, 1, "this field is required and absent"),
    ("another API", "apiVersion: apps/v1\nkind: Tier\n", 1, 13, "expected projectcalico.org/v3 or crd.project"),
    ("a kind misspelled", "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkset\n", 2, 7,
     "did you mean 'GlobalNetworkSet'?"),
    ("a list that ends too early", "apiVersion: v1\nkind: List\nitems:\n", 3, 7,
     "a list needs items; a list of nothing has items: []"),
    ("a list of no items", "apiVersion: v1\nkind: TierList\n", 1, 1, "a list needs items; a list of nothing has items"),
    ("a list within a list", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List}\n", 4, 26,
     "a list within a list"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "message"), [row[1:] for row in NO_DOCUMENT], ids=[row[0] for row in NO_DOCUMENT]
)
def test_what_is_no_document_is_a_finding(text: str, line: int, column: int, message: str) -> None:
    (finding,) = findings(text)
    assert finding.position == Position("x.yaml", line, column)
    assert message in finding.message


@pytest.mark.parametrize("spec", [{"bpfLogLevel": "\ud800"}, {"a\ud800": 1}, {"externalNodesList": ["\udfff"]}])
def test_half_of_a_surrogate_pair_is_no_text(spec: dict[str, object]) -> None:
    data = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": spec,
    }
    with pytest.raises(PolicyError, match="not text: it has characters that cannot be encoded"):
        load_documents([data])


@pytest.mark.parametrize("text", ["[" * 101, "[" * 2000, "{a: " * 2000, "? " * 2000, "- " * 2000])
def test_what_is_too_deep_is_said_so_in_the_same_words_by_every_libyaml(text: str) -> None:
    """The reported position differs: some parsers look a thousand characters ahead for the colon of a key."""
    (finding,) = findings(text)
    assert finding.message == "nested deeper than 100 levels"


def test_files_that_cannot_be_read_are_findings_along_with_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"a: 1\nb: \xff\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.yaml").write_text(document("GlobalNetworkSet", "nets: [x]"))
    with pytest.raises(PolicyError) as caught:
        load([tmp_path / "missing.yaml", tmp_path / "empty", tmp_path])
    assert [(Path(finding.position.path).name, finding.message.split(":")[0]) for finding in caught.value.findings] == [
        ("missing.yaml", "cannot be read"),
        ("empty", "no file here ends in .yaml, .yml, .json"),
        ("bad.yaml", "not text"),
        ("wrong.yaml", "expected an IP address or CIDR, found 'x'"),
    ]
    assert Position(str(tmp_path / "bad.yaml"), 2, 4) in {finding.position for finding in caught.value.findings}


def test_documents_before_a_syntax_error_are_checked_too() -> None:
    text = document("GlobalNetworkSet", "nets: [x]") + "---\na: [\n"
    assert [message.split(",")[0] for _, message in faults(text)] == [
        "expected an IP address or CIDR",
        "not YAML: while parsing a flow node",
    ]


def test_a_name_taken_twice_names_the_first_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SET)
    (tmp_path / "b.yaml").write_text(SET)
    with pytest.raises(PolicyError) as caught:
        load([tmp_path])
    (finding,) = caught.value.findings
    assert finding.position == Position(str(tmp_path / "b.yaml"), 3, 18)
    assert finding.message == f"a second GlobalNetworkSet named 'x'; the first is at {tmp_path / 'a.yaml'}:1:1"


def test_the_same_name_in_another_namespace_or_kind_is_another_resource() -> None:
    sets = [document("NetworkSet", "nets: []", f"{{name: x, namespace: {space}}}") for space in ("a", "b")]
    assert len(load_text("---\n".join([*sets, SET])).network_sets) == 2


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\x85", "\u2028"], ids=["CRLF", "CR", "NEL", "LS"])
def test_lines_are_counted_as_yaml_counts_them(ending: str) -> None:
    text = document("GlobalNetworkPolicy", "order: 5\nselector: a ==", "{name: x}").replace("\n", ending)
    (finding,) = findings(text)
    assert (finding.position.line, finding.position.column) == (6, 17)
    assert finding.context == "  selector: a ==\n" + " " * 16 + "^"


BOMBS = [
    ("lists", "".join(f"{'l' * n}: &{'l' * n} [{','.join(['*' + 'l' * (n - 1)] * 50 if n > 1 else ['x'] * 50)}]\n"
                      for n in range(1, 9))),
    ("rules", document("GlobalNetworkPolicy", "ingress:\n- &r {action: Deny, source: {nets: [" + "10.0.0.0/8," * 9_000
                       + "]}}\n" + "- *r\n" * 5_000)),
    ("documents", "apiVersion: v1\nkind: List\nitems:\n- &d {apiVersion: projectcalico.org/v3, kind: Tier, metadata: "
     "{name: a, labels: {" + ", ".join(f"a{n}: b" for n in range(2_000)) + "}}}\n" + "- *d\n" * 20_000),
    ("merges", "a: &a {" + ", ".join(f"a{n}: b" for n in range(5_000)) + "}\nb:\n" + "- {<<: *a}\n" * 5_000),
]  # fmt: skip


@pytest.mark.parametrize("text", [row[1] for row in BOMBS], ids=[row[0] for row in BOMBS])
def test_aliases_that_multiply_are_refused_before_anything_walks_them(text: str) -> None:
    (finding,) = findings(text)
    assert finding.message.startswith("aliases make ")
    assert finding.position.line


def test_aliases_within_reason_are_none_of_that() -> None:
    nets = ", ".join(f"10.{n}.0.0/16" for n in range(200))
    rules = "".join("- {action: Deny, source: {nets: *n}}\n" for _ in range(60))
    text = document("GlobalNetworkPolicy", f"ingress:\n- {{action: Log, source: {{nets: &n [{nets}]}}}}\n{rules}")
    assert {len(rule.source.nets) for rule in load_text(text).policies[0].ingress} == {200}


@pytest.mark.parametrize("version", schema.API_VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stands_in_both_forms_of_list(kind: str, version: str) -> None:
    spec = {"node": "a", "interfaceName": "eth0"} if kind == "HostEndpoint" else {}
    item = {"metadata": {"name": "x"}, "spec": spec}
    typed = {"apiVersion": version, "kind": f"{kind}List", "metadata": {}, "items": [item]}
    plain = {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": version, "kind": kind, **item}]}
    # For mypy: a dict of JSON
    assert load_documents([typed]) == load_documents([plain]) == load_documents([plain["items"][0]])  # type: ignore[index]


def test_all_findings_of_standard_input_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "---\n".join([document("GlobalNetworkSet", "nets: [x, y]"), document("Tier", "order: z")])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    with pytest.raises(PolicyError) as caught:
        load(["-"])
    places = [str(finding.position) for finding in caught.value.findings]
    assert places == ["<stdin>:5:10", "<stdin>:5:13", "<stdin>:11:10"]


def test_ten_thousand_cidrs_take_no_time() -> None:
    nets = "".join(f"- 10.0.{i >> 8}.{i & 255}/32\n" for i in range(10_000))
    assert len(load_text(document("GlobalNetworkSet", f"nets:\n{nets}")).global_network_sets[0].nets) == 10_000

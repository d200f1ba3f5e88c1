"""Whatever a document or a selector contains, only declared errors are raised, with a position in the text.

Documents are valid ones with mutated structure (fields exchanged, removed, repeated, nested) and text (special YAML
syntax inserted anywhere), and raw bytes. The nightly profile tries a hundred times as many.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dossim.lint import lint
from enforcer.model.errors import PolicyError, UnsupportedRuleError
from enforcer.policy import nodes
from enforcer.policy.compile import compile_table
from enforcer.policy.load import load, load_documents, load_text
from enforcer.policy.resources import Resources
from enforcer.policy.selector import SelectorError, parse
from enforcer.policy.tolerant import load_tolerant
from tests.support.examples import examples

T, E = TypeVar("T"), TypeVar("E", bound=Exception)
EXAMPLES = examples(1000, nightly=100_000)
HEAD = "apiVersion: projectcalico.org/v3\nkind: "
VALID = [
    HEAD + "HostEndpoint\nmetadata: {name: h, labels: {role: edge}}\nspec:\n  node: jasper\n  interfaceName: eth0\n"
    "  expectedIPs: [10.10.10.10, 'fd00::10']\n  profiles: [p]\n  ports: [{name: dns, protocol: UDP, port: 53}]\n",
    HEAD + "GlobalNetworkSet\nmetadata: {name: s, labels: {list: deny}}\n"
    "spec: {nets: [203.0.113.0/24, 198.51.100.7, '2001:db8::/32', '::ffff:192.0.2.1']}\n",
    HEAD + "NetworkSet\nmetadata: {name: n, namespace: web}\nspec: {nets: [192.0.2.0/25]}\n",
    HEAD + "GlobalNetworkPolicy\nmetadata: {name: default.p}\nspec:\n  tier: default\n  order: 10\n"
    "  selector: role == 'edge'\n  doNotTrack: true\n  applyOnForward: true\n  types: [Ingress, Egress]\n  ingress:\n"
    "  - {action: Allow, protocol: TCP, source: {nets: [203.0.113.9/32], ports: [1024:65535]}}\n"
    "  - {action: Pass, protocol: 1, icmp: {type: 8, code: 0}, notProtocol: 6}\n"
    "  - {action: Deny, source: {selector: list == 'deny', notSelector: has(x), namespaceSelector: global()}}\n"
    "  - {action: Log, ipVersion: 6, protocol: ICMPv6, notICMP: {type: 135}}\n"
    "  - {action: Deny, destination: {ports: [dns], notNets: [192.0.2.0/24]}}\n"
    "  egress: [{action: Deny, protocol: UDP, destination: {notPorts: [53]}}]\n",
    HEAD + "Tier\nmetadata: {name: t}\nspec: {order: 5.5, defaultAction: Pass}\n",
    HEAD + "Profile\nmetadata: {name: p}\nspec: {labelsToApply: {site: lab}, ingress: [{action: Allow}]}\n",
    HEAD + "FelixConfiguration\nmetadata:\n  name: default\n"
    "  annotations: {config.projectcalico.org/XDPEnabled: 'true'}\nspec:\n  xdpRefreshInterval: 90s\n"
    "  failsafeInboundHostPorts: [{protocol: tcp, port: 22, net: 10.0.0.0/8}]\n  failsafeOutboundHostPorts: 'udp:53'\n"
    "  iptablesMarkMask: 0xffff0000\n  interfaceExclude: '/^kube/,veth1'\n  logActionRateLimit: 10/minute\n",
    HEAD + "FelixConfiguration\nmetadata: {name: edge, creationTimestamp: '2026-01-01T00:00:00Z'}\n"
    "spec: {nodeSelector: role == 'edge', xdpEnabled: false}\n",
    HEAD + "Node\nmetadata: {name: jasper, labels: {role: edge}}\nspec: {}\n",
    "apiVersion: v1\nkind: List\nitems:\n- apiVersion: projectcalico.org/v3\n  kind: Tier\n  metadata: {name: u}\n",
]
TREES = [yaml.load(text, Loader=yaml.BaseLoader) for text in VALID]

SCALARS: list[Any] = [
    None, True, 0, -1, 1.5, 2**63, -(2**64), 10**400, float("inf"), float("nan"), "", " ", "none", "all()", "!" * 1000,
    "(" * 500, "0x_", "1e999", "10.0.0.0/33", "::ffff:1.2.3.4/95", "fe80::1%eth0", "\ud800", "\x00", "a" * 2000,
    "tcp:[:22", "/(/", "/(((a?){1000}){1000}){1000}$/", "1h" * 300, "0:0", "65536:1", "has(", "a in {'b'", "\u2028",
]  # fmt: skip
SNIPPETS = [
    "&a ", "*a", "<<: *a", "!!int ", "!!binary ", "!x ", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "\t", "? ",
    ": ", "- ", "[", "]", "{", "}", ",", "|\n", ">-\n", "'", '"', "\\", "#", "\x00", "\x85", "\u2028", "\ufeff",
    "\ud800", "0x_", "0b_", "0o_", "-0x", "1_", "9" * 400, "1e999", ".nan", "-.inf", "~", "null", "yes", "017", "1:30",
    "2026-01-01", "\r", "\n", "\n  ", "[" * 120, "{a: " * 120, "@", "`", "=",
]  # fmt: skip


def mutated_tree(rng: random.Random) -> Any:
    """A valid document with some of its values, at any depth, replaced, removed, repeated or moved."""
    tree = json.loads(json.dumps(rng.choice(TREES)))
    for _ in range(rng.randrange(1, 4)):
        places = list(_places(tree))
        if not places:
            return rng.choice(SCALARS)
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0 | 1:
                holder[key] = rng.choice(SCALARS)
            case 2:
                holder[key] = rng.choice([[], {}, [holder[key]], {"a": holder[key]}, [holder[key]] * 3])
            case 3 if isinstance(holder, dict):
                holder[rng.choice(["", "spec", "nets", "a.b", "nul", key.lower(), key + "s"])] = holder.pop(key)
            case 4:
                del holder[key]
            case _:
                holder[key] = rng.choice(places)[0].__class__()
    return tree


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)


def mutated_text(rng: random.Random) -> str:
    """Valid documents, or a mutated one as JSON, with text inserted, removed and repeated anywhere."""
    texts = [rng.choice(VALID) for _ in range(rng.randrange(1, 3))]
    text = "---\n".join(texts) if rng.randrange(3) else json.dumps(mutated_tree(rng))
    for _ in range(rng.randrange(1, 6)):
        at, length = rng.randrange(len(text) + 1), rng.randrange(12)
        piece = rng.choice(["", text[at : at + length] * 2, rng.choice(SNIPPETS), rng.choice(SNIPPETS)])
        text = text[:at] + piece + text[at + length * rng.randrange(2) :]
    return text


def only_declared(read: Callable[[], Resources]) -> None:
    """The allowed results: resources that can be compiled and examined, or findings with their positions."""
    found, error = outcome(read, PolicyError)
    if error is not None:
        assert error.findings
        assert all(str(finding) and finding.position.line >= 0 for finding in error.findings)
        return
    assert found is not None
    for interface in ("eth0", "eth1"):
        outcome(lambda name=interface: compile_table(found, node="jasper", interface=name), UnsupportedRuleError)
    outcome(lambda: lint(found), UnsupportedRuleError)


def outcome(make: Callable[[], T], declared: type[E]) -> tuple[T | None, E | None]:
    """The result, or the declared error; any other error propagates."""
    try:
        return make(), None
    except declared as error:
        return None, error


@settings(max_examples=EXAMPLES)
@given(st.integers(0, 2**64), st.sampled_from(["tree", "text", "text", "bytes"]))
def test_a_document(tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str) -> None:
    rng = random.Random(seed)
    if kind == "tree":
        tree = mutated_tree(rng)
        only_declared(lambda: load_documents([tree]))
        return
    text = mutated_text(rng)
    if kind == "text":
        only_declared(lambda: load_text(text, "x.yaml"))
        return
    content = bytearray(text.encode(errors="replace"))
    for _ in range(rng.randrange(1, 8)):
        content[rng.randrange(len(content) or 1) : 0] = rng.randbytes(rng.randrange(4))
    path = Path(tmp_path_factory.getbasetemp()) / "fuzz.yaml"
    path.write_bytes(content)
    only_declared(lambda: load([path]))
    load_tolerant([path], Resources())


PIECES = [
    "a", "b", " ", "\t", "==", "!=", "=", "'x'", '"y"', "'", "(", ")", "!", "&&", "||", "&", "in", "not in", "notin",
    "{", "}", ",", "has(", "has(a)", "all()", "global()", "contains", "starts with", "ends with", "\n", "\x00", "é",
    "\ud800", "!" * 500, "(" * 500, "a" * 600, "(!" * 200, "has(a)" + ")" * 300, "has(a)&&" * 100,
]  # fmt: skip


@settings(max_examples=EXAMPLES)
@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=20).map("".join), st.text(max_size=60)))
def test_a_selector(text: str) -> None:
    selector, error = outcome(lambda: parse(text), SelectorError)
    if error is not None:
        assert 1 <= error.column <= len(text) + 1
        assert error.caret()
        return
    assert selector is not None
    again = parse(selector.canonical)
    for labels in ({}, {"a": "x"}, {"a": "", "b": "y"}):
        assert again.evaluate(labels) == selector.evaluate(labels)
    assert selector.with_prefix("pcns.").canonical


@pytest.mark.parametrize(
    "text",
    ["!" * 50_000 + "has(a)", "(" * 50_000, "(" * 50_000 + "has(a)" + ")" * 50_000, "has(a) && " * 50_000 + "has(a)"],
    ids=["negations", "open", "nested", "long"],
)
def test_a_long_selector_exhausts_nothing(text: str) -> None:
    selector, error = outcome(lambda: parse(text), SelectorError)
    assert str(error) if selector is None else selector.canonical


# --- limits, each with its message -----------------------------------------------------------------------------------

TIER = HEAD + "Tier\nmetadata: {name: t}\nspec: {order: %s}\n"


@pytest.mark.parametrize(
    "odd", ["0x_", "0b_", "0o_", "-0x_", "1e999", ".nan", ".inf", "9" * 400, "9" * 5000, "0x" + "f" * 300]
)
def test_an_odd_number_is_a_finding_with_its_place(odd: str) -> None:
    _, error = outcome(lambda: load_text(TIER % odd, "x.yaml"), PolicyError)
    assert error is not None
    (finding,) = error.findings
    assert (finding.field, finding.position.line, finding.position.column) == ("spec.order", 4, 15)
    assert "expected a number" in finding.message


def _laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200, "nested deeper than 100 levels"),
        ("[" * 100_000, "nest"),
        ("- " * 100_000, "nested deeper than 100 levels"),
        (_laughs(), "aliases make"),
        ("x: " + "y" * (2**20 + 1), "a text of 1,048,577 characters; at most 1,048,576 are allowed"),
    ],
    ids=["flow", "deep flow", "blocks", "billion laughs", "scalar"],
)
def test_a_limit_has_its_sentence(text: str, message: str) -> None:
    _, error = outcome(lambda: load_text(text, "x.yaml"), PolicyError)
    assert error is not None
    assert message in str(error.findings[-1]).lower()


def test_the_size_and_the_number_of_values_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "NODES_MAX", 1000)
    _, error = outcome(lambda: load_text("[" + "1, " * 999 + "1]\n--- [1]\n"), PolicyError)
    assert error is not None
    assert "more than 1,000 values in one text" in str(error)
    monkeypatch.setattr(nodes, "DOCUMENTS_MAX", 10)
    _, error = outcome(lambda: load_text("--- \n" * 11), PolicyError)
    assert "more than 10 documents in one text" in str(error)
    monkeypatch.setattr(nodes, "TEXT_MAX", 100)
    _, error = outcome(lambda: load_text("#" * 101), PolicyError)
    assert "a text of 101 characters; at most 100 are read" in str(error)

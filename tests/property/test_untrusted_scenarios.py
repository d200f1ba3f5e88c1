"""Untrusted scenario files and packet expressions: only declared errors are raised, each safe to print.

Documents are valid ones with some values replaced, keys moved and text cut; some are random bytes.
"""

from __future__ import annotations

import copy
import json
import random
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dossim.model.errors import PacketError
from dossim.scenario.budget import Budget, Limits
from dossim.scenario.expression import assumed_in, frames_of, layers
from dossim.scenario.findings import InvalidScenario
from dossim.scenario.load import load_scenario
from dossim.scenario.run import ScenarioRunner
from enforcer.model.errors import EnforcerError
from tests.support.examples import examples
from tests.unit.enforcer.test_printable import HOSTILE, harmless

ROOT = Path(__file__).parents[2]
SCENARIOS = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "scenarios").glob("*.scenario.yaml"))]
POLICY = list(yaml.safe_load_all((ROOT / "scenarios/policies/how-to.yaml").read_text()))
GENERATORS: list[dict[str, Any]] = [
    {"generate": "fragments", "count": 2, "sources": "203.0.113.0/24", "label": "a", "size": 3000, "mtu": 1280},
    {"generate": "dns-queries", "count": 2, "sources": ["203.0.113.0/24", "2001:db8::/64"], "label": "a"},
    {"generate": "arp", "count": 2, "sources": "203.0.113.0/24", "label": "a", "vlan": [1, 2]},
    {"generate": "tcp-flags", "count": 3, "sources": "203.0.113.0/24", "label": "a", "flags": ["S", ""]},
    {"generate": "icmp-flood", "count": 2, "sources": "2001:db8::/64", "label": "a", "seed": 7},
    {"generate": "scapy", "count": 2, "packet": 'IP(src="203.0.113.0/30")/UDP(dport=9)', "label": "a"},
]
EXPECT: list[dict[str, Any]] = [
    {"label": "a", "fate": "dropped", "at-or-before": "raw", "share": {"at-least": 0.0}},
    {"label": "a", "fate": "delivered", "share": {"at-most": 1.0}, "modes": ["raw"]},
    {"conntrack-entries": {"at-most": 60}},
    {"conntrack": {"state": {"NEW": 1}, "entries": {"at-most": 60}, "early-drop": 0, "dropped": {"at-least": 0}}},
    {"entry": "gnp/dos-mitigation ingress[0]", "packets": {"at-least": 0}},
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 5.0, 1.5, float("inf"), float("nan"), 10**30, -(10**400), 1 << 63, 65_536, 1e300),
    *("", "0x_", "1_0", "a", "::", "10.0.0.0/8", "fe80::1%eth0", "1.2.3.4/33", "80-70", "0-65535", "udp/99999", "²"),
    *([], {}, [[]], [{}], {"a": {"b": []}}, [0] * 300, ["x"] * 2000, {str(n): n for n in range(300)}),
    *("x" * 5000, "IP()", "IP(" * 50, "-" * 500, "../../../etc/passwd", "/dev/zero", "\0", "$", "{{7*7}}"),
    *HOSTILE.values(),
]
HOST = {4: ip_address("10.10.10.10"), 6: ip_address("fd00::10")}
NUMBERS = (0, 1, 2, 7, 8, 68, 255, 1280, 4094, 9000, 65_000)
PIECES = ("", "&a ", "*a", "!!int ", "\t", "]", "{", '"', ": ", "\n- ", "<<: ", "---\n", "# ", "|\n", "%")
SMALL = Limits(packets=5_000, total_bytes=5_000_000, described=500)


def document(choose: random.Random) -> dict[str, Any]:
    """A valid scenario."""
    found: dict[str, Any] = copy.deepcopy(choose.choice(SCENARIOS))
    found["policy"] = copy.deepcopy(POLICY)
    found["host"] = {"listen": ["tcp/80"], **found.get("host", {}), "addresses": ["10.10.10.10", "fd00::10"]}
    found["traffic"] = [*found["traffic"], *copy.deepcopy(choose.sample(GENERATORS, 2))]
    found["expect"] = copy.deepcopy(choose.sample(EXPECT, 2))
    found["modes"] = ["native", "raw"]
    for row in found["traffic"]:
        row["count"] = min(row.get("count", 1), 50)
    return found


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [place for key in keys for place in [(node, key), *places(node[key])]]


def mutate(found: dict[str, Any], choose: random.Random) -> None:
    container, key = choose.choice(places(found))
    if choose.random() < 0.6:  # a leaf becomes another of its type, which may be valid
        leaves = [place for place in places(found) if not isinstance(place[0][place[1]], (dict, list))]
        container, key = choose.choice(leaves)
        same = [at[where] for at, where in leaves if type(at[where]) is type(container[key])]
        container[key] = choose.choice([*same, *NUMBERS] if isinstance(container[key], int) else same)
        return
    match choose.randrange(5):
        case 0 | 1:
            container[key] = copy.deepcopy(choose.choice(VALUES))
        case 2:
            del container[key]
        case 3:
            other, where = choose.choice(places(found))
            container[key] = copy.deepcopy(other[where])
        case 4 if isinstance(container, dict):
            container[str(choose.choice(VALUES))[:80]] = container.pop(key)
        case _:
            container[key] = [container[key], copy.deepcopy(choose.choice(VALUES))]


def cut(text: str, choose: random.Random) -> str:
    """Some characters removed, repeated or replaced."""
    for _ in range(choose.randrange(4)):
        at = choose.randrange(len(text) + 1)
        piece = choose.choice(
            ["", text[at : at + 20] * 2, "&a ", "*a", "!!int ", "\t", "]", "{", '"', ": ", "\n- ", "<<: "]
        )
        text = text[:at] + piece + text[at + choose.randrange(3) :]
    return text


def text_of(seed: int) -> str:
    choose = random.Random(seed)
    found = document(choose)
    for _ in range(choose.randrange(1, 4)):
        mutate(found, choose)
    if choose.random() < 0.7:
        return json.dumps(found, allow_nan=True)
    return cut(yaml.safe_dump(found, default_flow_style=None), choose)


def check(path: Path) -> None:
    """Loading and predicting ends, or raises a declared error whose message is safe to print."""
    found: EnforcerError | None = None
    try:
        scenario = load_scenario(path, limits=SMALL)
        ScenarioRunner(scenario, limits=SMALL).predict(scenario.modes[0])
    except EnforcerError as error:
        found = error
    if found is None:
        return
    assert found.exit_code == 2, repr(found)
    for finding in getattr(found, "findings", ()):
        assert harmless(str(finding))
        assert str(path.parent) in str(finding) or not isinstance(found, InvalidScenario)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("untrusted") / "it.scenario.yaml"


@pytest.mark.parametrize("seed", range(5))
def test_what_is_changed_was_right(seed: int, file: Path) -> None:
    file.write_text(json.dumps(document(random.Random(seed))))
    scenario = load_scenario(file, limits=SMALL)
    assert ScenarioRunner(scenario, limits=SMALL).predict(scenario.modes[0]).outcomes


@settings(max_examples=examples(250, nightly=10_000), suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**64))
def test_changed_scenarios(seed: int, file: Path) -> None:
    file.write_bytes(text_of(seed).encode("utf-8", "surrogatepass"))
    check(file)


@settings(max_examples=examples(100, nightly=10_000), suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(content=b"- " * 5000)
@example(content=b"[" * 5000)
@example(content=b"a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n" + b"c: [*b,*b,*b,*b]\n" * 50)
@example(content=b"modes: [" + b"{}," * 50_000 + b"]")
@example(content=b"{" + b"x: 1," * 50_000 + b"}")
@example(content=b"traffic: [" + b"{generate: udp-floood}," * 20_000 + b"]")
def test_bytes_of_no_kind(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    check(file)


# --- expressions ------------------------------------------------------------------------------------------------------

LAYERS = sorted(layers())
COMMON = ["IP", "IPv6", "TCP", "UDP", "ICMP", "ARP", "Ether", "DNS", "Raw"]
SIGNS = ["/", "*", "(", ")", "[", "]", ",", "-", "=", "lambda", "'", "\\", "\n", "#"]
ATOMS = st.sampled_from([
    *("0", "1", "-1", "65535", "65536", "4294967296", "1.5", "1e400", "None", "True", '""', '"x"', 'b"\\xff"', '"S"'),
    *('"1.2.3.4"', '"10.0.0.0/30"', '"fd00::/126"', '"a.example"', "(1, 3)", "(3, 1)", "(1, 9, 0)", '"x" * 100'),
    *("(1, 9999999)", '("1.2.3.4", "1.2.3.9")', '"0.0.0.0/0"', '"é\x1b\u202e"', "'\\n::error::'", "x", "1+1", "f'{1}'"),
])  # fmt: skip


@st.composite
def calls(draw: st.DrawFn, depth: int = 2) -> str:
    name = draw(
        st.sampled_from(["IP", "IPv6", "TCP", "UDP", "ICMP", "ARP", "Ether", "DNS", "Raw"]) | st.sampled_from(LAYERS)
    )
    fields = [field.name for field in layers()[name].fields_desc] or ["x"]
    given = draw(st.lists(st.sampled_from(fields), max_size=3, unique=True))
    values = ATOMS if depth == 0 else ATOMS | st.lists(ATOMS | calls(depth - 1), max_size=3).map(
        lambda items: f"[{', '.join(items)}]"
    )  # fmt: skip
    return f"{name}({', '.join(f'{field}={draw(values)}' for field in given)})"


EXPRESSIONS = st.lists(calls(), min_size=1, max_size=4).map("/".join) | st.lists(
    calls() | ATOMS | st.sampled_from(SIGNS), max_size=9
).map("".join)  # fmt: skip


@settings(max_examples=examples(150, nightly=10_000), suppress_health_check=list(HealthCheck))
@given(text=EXPRESSIONS | st.text(max_size=60))
def test_expressions(text: str) -> None:
    try:
        frames = frames_of(text, HOST, budget=Budget(SMALL))
        assert all(isinstance(frame, bytes) for frame in frames)
        assumed_in(text)
    except PacketError as error:
        for finding in error.findings:  # type: ignore[attr-defined]  # of this subclass
            assert harmless(finding)

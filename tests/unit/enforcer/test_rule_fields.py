"""Every field that a rule can match on, in every consumer of rules: it changes the result or is refused.

mypy cannot name the consumers of a Rule's fields, because each has a default. Instead, every consumer compares the
fields that a rule sets with those it supports (``match_fields``), and this table has a row for each field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from dossim.lint.allowed import TrackedPolicies
from dossim.packet.parse import parse, seen_transport
from dossim.pipeline.explain import Explainer
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.policy import Policy
from dossim.pipeline.stages import Context
from dossim.pipeline.xdp import decide
from dossim.pipeline.xdp_headers import Known, Missing, readable_ip
from dossim.pipeline.xdp_held import NEEDS, held_rules, why_not_offload
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action, Direction, Mode, Stage
from enforcer.policy import schema
from enforcer.policy.compile import compile_table
from enforcer.policy.load import load_documents
from enforcer.policy.resources import EntityRule, GlobalNetworkPolicy, Resources, Rule, fields_of_sides, match_fields
from enforcer.policy.ruletable import RuleTable
from tests.support import strategies
from tests.support.dump import documents
from tests.support.examples import draw_until
from tests.support.frame_strategies import random_frames
from tests.support.frames import ME4, ethernet, ipv4, segment
from tests.support.reach import reach
from tests.support.witnesses import explained, plan_for, predicted, table_of
from tests.unit.dossim.xdp_decisions import BAD, HOST, resources

TCP = ethernet(ipv4(segment(6, BAD, ME4, (1024, 80), b""), source=BAD, destination=ME4, protocol=6), 0x0800)
ECHO = ethernet(ipv4(bytes([8, 0, *[0] * 6]), source=BAD, destination=ME4, protocol=1), 0x0800)
ADDRESSES = [address.ip for address in HOST.addresses]


@dataclass(frozen=True)
class Row:
    """Parts of a rule as YAML: the field with a value that does not match the packet, and with one that does; and the
    other fields (``beside``). Without the field the rule matches.

    ``refused``: no untracked policy can have the field, and every consumer refuses it.
    """

    field: str
    fails: str
    holds: str = ""
    beside: str = ""
    packet: bytes = TCP
    direction: Direction = Direction.INGRESS
    refused: bool = False
    action: Action = Action.DENY

    @property
    def rule(self) -> Rule:
        return self._read(self.fails)

    @property
    def matching(self) -> Rule:
        return self._read(self.holds)

    @property
    def without(self) -> Rule:
        return self._read("")

    def _read(self, text: str) -> Rule:
        said = yaml.safe_load("{" + ", ".join(filter(None, (f"action: {self.action}", self.beside, text))) + "}")
        spec = {"doNotTrack": True, "applyOnForward": True, "types": [str(self.direction).capitalize()]}
        metadata = {"name": "p"}
        document = {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": metadata}
        (policy,) = load_documents([{**document, "spec": {**spec, str(self.direction): [said]}}]).policies
        (found,) = policy.ingress if self.direction is Direction.INGRESS else policy.egress
        return found


def _of_side(side: str) -> list[Row]:
    selects, others = "has(list)", "has(role)"  # the set of sources, the host itself
    if side == "destination":
        selects, others = others, selects
    own_net, own_port = ("203.0.113.0/24", 1024) if side == "source" else (f"{ME4}/32", 80)

    def row(name: str, fails: str, holds: str, beside: str = "") -> Row:
        return Row(f"{side}.{name}", f"{side}: {{{fails}}}", f"{side}: {{{holds}}}", beside)

    def refused(name: str, text: str, direction: Direction) -> Row:
        return Row(f"{side}.{name}", f"{side}: {{{text}}}", direction=direction, refused=True)

    return [
        row("nets", "nets: [192.0.2.0/24]", f"nets: [{own_net}]"),
        row("not_nets", f"notNets: [{own_net}]", "notNets: [192.0.2.0/24]"),
        row("selector", "selector: has(nobody)", f"selector: {selects}"),
        row("not_selector", f"notSelector: {selects}", f"notSelector: {others}"),
        row("namespace_selector", "namespaceSelector: all()", "namespaceSelector: global()"),
        row("ports", "ports: [9]", f"ports: [{own_port}]", "protocol: TCP"),
        row("not_ports", f"notPorts: [{own_port}]", "notPorts: [9]", "protocol: TCP"),
        refused("service_accounts", "serviceAccounts: {names: [a]}", Direction.INGRESS),
        refused(
            "services",
            "services: {name: a, namespace: b}",
            Direction.INGRESS if side == "source" else Direction.EGRESS,
        ),
    ]


ROWS = [
    Row("ip_version", "ipVersion: 6", "ipVersion: 4"),
    Row("protocol", "protocol: UDP", "protocol: TCP"),
    Row("not_protocol", "notProtocol: TCP", "notProtocol: UDP"),
    Row("icmp", "icmp: {type: 3}", "icmp: {type: 8}", "protocol: 1", ECHO),
    Row("not_icmp", "notICMP: {type: 8}", "notICMP: {type: 3}", "protocol: 1", ECHO),
    Row("http", "http: {methods: [GET]}", beside="protocol: TCP", refused=True, action=Action.ALLOW),
    *_of_side("source"),
    *_of_side("destination"),
]
each = pytest.mark.parametrize("row", ROWS, ids=[row.field for row in ROWS])
enforced = pytest.mark.parametrize("row", [row for row in ROWS if not row.refused], ids=lambda row: row.field)
refused = pytest.mark.parametrize("row", [row for row in ROWS if row.refused], ids=lambda row: row.field)


def policy(rule: Rule, direction: Direction = Direction.INGRESS) -> Resources:
    """One policy that has one rule; no failsafes."""
    rules: dict[str, Any] = {"types": (str(direction).capitalize(),), str(direction): (rule,)}
    return resources(GlobalNetworkPolicy("p", do_not_track=True, apply_on_forward=True, **rules))


def read(rule: Rule, direction: Direction = Direction.INGRESS) -> Policy:
    told = policy(rule, direction)
    return Policy.of(told, node=HOST.node, interface=HOST.interface, addresses=ADDRESSES, direction=direction)


def compiled(rule: Rule, direction: Direction = Direction.INGRESS) -> object:
    table = compile_table(policy(rule, direction), node=HOST.node, interface=HOST.interface, addresses=ADDRESSES)
    (entry,) = (*table.ingress, *table.egress)
    return entry.families, entry.conditions


def reached(table: RuleTable) -> Sequence[bytes]:
    return reach(table, HOST).frames


def random_ones(table: RuleTable) -> Sequence[bytes]:
    return random_frames(table, Random(0), 300)


# --- the table is complete --------------------------------------------------------------------------------------------


def test_every_field_of_a_rule_has_a_row() -> None:
    own = {item.name for item in fields(Rule)} - {"action", "position", "source", "destination"}
    assert {row.field for row in ROWS} == own | fields_of_sides(*(item.name for item in fields(EntityRule)))


def test_every_field_of_the_api_is_a_field_of_a_rule() -> None:
    def names(api: tuple[str, ...]) -> set[str]:
        return {re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in api}

    assert names(schema.RULE) - {"metadata"} == {item.name for item in fields(Rule)} - {"position"}
    assert names(schema.ENTITY) == {item.name for item in fields(EntityRule)}


@pytest.mark.parametrize("name", [*schema.RULE, *schema.ENTITY])
def test_every_field_of_the_api_is_in_the_documents(name: str) -> None:
    text = (Path(__file__).parents[3] / "docs/resources.md").read_text()
    assert re.search(rf"`\.?{name}`", text)


# --- it is read, written and generated --------------------------------------------------------------------------------


@each
def test_the_validator_reads_it(row: Row) -> None:
    for rule in (row.rule, row.rule if row.refused else row.matching):
        assert match_fields(rule) - match_fields(row.without) == {row.field}


@each
def test_a_counterexample_is_written_with_it(row: Row) -> None:
    told = policy(row.rule, row.direction)
    (again,) = load_documents(documents(told)).policies
    (rule,) = (*again.ingress, *again.egress)
    assert replace(rule, position=row.rule.position) == row.rule


def test_the_properties_draw_each() -> None:
    missing = {row.field for row in ROWS if not row.refused}

    def drew_all(rule: Rule) -> bool:
        missing.difference_update(match_fields(rule))
        return not missing

    draw_until(drew_all, strategies.rules(), most=5_000)
    assert not missing


# --- it makes a difference --------------------------------------------------------------------------------------------


@enforced
def test_explain_and_predict_evaluate_it(row: Row) -> None:
    for witness in (explained, predicted):
        for rule, denied in ((row.without, True), (row.matching, True), (row.rule, False)):
            (found,) = witness(policy(rule), HOST, ModeChoice.RAW, [row.packet])
            assert (found.stage is Stage.RAW) is denied, (witness.__name__, rule)


@enforced
@pytest.mark.parametrize("aim", [reached, random_ones])
def test_the_properties_aim_packets_at_it(row: Row, aim: Callable[[RuleTable], Sequence[bytes]]) -> None:
    """Of the packets that the rest of the rule matches, some match and some do not."""
    frames = aim(table_of(policy(row.matching), HOST))
    denied, by_rest = (
        [item.stage is Stage.RAW for item in predicted(policy(rule), HOST, ModeChoice.RAW, frames)]
        for rule in (row.matching, row.without)
    )
    assert {own for own, rest in zip(denied, by_rest, strict=True) if rest} == {True, False}


@enforced
def test_it_makes_a_condition(row: Row) -> None:
    assert compiled(row.rule) != compiled(row.without)


@enforced
@pytest.mark.parametrize("choice", [ModeChoice.NATIVE, ModeChoice.OFFLOAD])
def test_explain_and_the_plan_agree_on_who_holds_it(row: Row, choice: ModeChoice) -> None:
    mode = Mode.OFFLOAD if choice is ModeChoice.OFFLOAD else Mode.NATIVE
    assert len(held_rules(read(row.rule), mode).rules) == plan_for(policy(row.rule), HOST, choice).held


@enforced
def test_a_program_that_does_not_know_what_it_needs_passes_the_packet(row: Row) -> None:
    """A rule with a field that the program does not match on is left to raw."""
    context = Context(read(row.rule), HOST, Mode.NATIVE)
    if row.field not in NEEDS:
        assert row.field in context.held.why
        return
    ip = readable_ip(parse(row.packet).link)
    assert ip is not None
    transport, missing = seen_transport(ip, skip_authentication=True), NEEDS[row.field]
    assert transport is not None
    match missing:
        case None:
            known = Known(transport)
        case Missing.PROTOCOL:
            known = Known(None, missing, "hidden")
        case Missing.PORTS | Missing.ICMP_TYPE:
            known = Known(replace(transport, fragment_offset=8), missing, "hidden")
    denied_by, why = decide(MatchKey(4, ip.source, ip.destination, known.transport), known, context)
    assert denied_by is None
    assert (f"p ingress[0] might match: its {missing} cannot be determined" in why) is (missing is not None)


# --- or is refused ----------------------------------------------------------------------------------------------------


@refused
def test_explain_and_the_compiler_refuse_it(row: Row) -> None:
    with pytest.raises(UnsupportedRuleError, match=row.field):
        read(row.rule, row.direction)
    name = row.field.replace("service_accounts", "serviceAccounts")
    with pytest.raises(UnsupportedRuleError, match=f"cannot be enforced with {name}: "):
        compiled(row.rule, row.direction)


# --- one that no consumer handles -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MoreRule(Rule):
    one_more: int | None = None


@dataclass(frozen=True)
class MoreEntity(EntityRule):
    one_more: str = ""


MORE = {
    "one_more": MoreRule(Action.DENY, one_more=1),
    "source.one_more": Rule(Action.DENY, source=MoreEntity(one_more="x")),
    "destination.one_more": Rule(Action.DENY, destination=MoreEntity(one_more="x")),
}


@pytest.mark.parametrize("name", MORE)
def test_who_does_not_know_a_field_refuses_it_by_name(name: str) -> None:
    with pytest.raises(UnsupportedRuleError, match=f"{name} cannot be explained"):
        Explainer(policy(MORE[name]), HOST, mode=None)
    with pytest.raises(UnsupportedRuleError, match=f"{name}: the compiler does not know it"):
        compiled(MORE[name])


@pytest.mark.parametrize("name", MORE)
def test_explain_has_it_left_to_raw_and_all_after_it(name: str) -> None:
    known, more = read(Rule(Action.DENY)), MORE[name]
    unread = replace(known, rules=(*known.rules, replace(known.rules[0], rule=more), *known.rules))
    for mode in (Mode.NATIVE, Mode.OFFLOAD):
        held = held_rules(unread, mode)
        assert (len(held.rules), name in held.why) == (1, True)
    assert name in why_not_offload(more)


@pytest.mark.parametrize("name", MORE)
def test_lint_leaves_out_a_tracked_policy_that_has_it(name: str) -> None:
    told = policy(MORE[name])
    tracked = replace(told, policies=tuple(replace(item, do_not_track=False) for item in told.policies))
    assert TrackedPolicies(tracked)._resources.policies == ()

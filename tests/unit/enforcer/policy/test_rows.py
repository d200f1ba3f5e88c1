"""Every rule of Calico's API, accepted and refused, in both API groups, in YAML and in JSON."""

from __future__ import annotations

import json

import pytest

from enforcer.policy import schema
from enforcer.policy.nodes import Fieldset, Items, Node, from_text
from enforcer.policy.validate import KINDS
from enforcer.policy.validate_felix import FIELDS
from tests.unit.enforcer.policy.documents import accepted, findings
from tests.unit.enforcer.policy.rows import Row, long
from tests.unit.enforcer.policy.rows_felix import FELIX
from tests.unit.enforcer.policy.rows_objects import HOST_ENDPOINT, METADATA, NETWORK_SETS, PROFILES, TIERS
from tests.unit.enforcer.policy.rows_policies import POLICIES
from tests.unit.enforcer.policy.rows_rules import RULES

ROWS = [*METADATA, *HOST_ENDPOINT, *NETWORK_SETS, *TIERS, *PROFILES, *POLICIES, *RULES, *FELIX]

every_row = pytest.mark.parametrize("row", ROWS, ids=map(str, ROWS))
every_version = pytest.mark.parametrize("version", schema.API_VERSIONS, ids=["v3", "crd"])


def as_json(text: str) -> str:
    """The documents of a YAML text as JSON, which has none of YAML's special cases."""
    return "\n---\n".join(json.dumps(_plain(root)) for root in from_text(text))


def _plain(node: Node) -> object:
    if isinstance(node, Fieldset):
        return {name: _plain(value) for name, value in node.fields.items()}
    return [_plain(item) for item in node.items] if isinstance(node, Items) else node.value


@every_version
@every_row
def test_calico_accepts(row: Row, version: str) -> None:
    assert accepted(row.accepted(version))
    assert accepted(as_json(row.accepted(version)))


@every_version
@every_row
def test_calico_refuses(row: Row, version: str) -> None:
    (finding,) = findings(row.refused(version))
    place = finding.position
    assert f"{place.line}:{place.column}: {finding.field}: {finding.message}" == long(row.refusal)
    (other,) = findings(as_json(row.refused(version)))
    assert (other.field, other.message.partition(";")[0]) == (finding.field, finding.message.partition(";")[0])


def test_every_kind_and_every_felix_field_has_a_row() -> None:
    assert {row.kind for row in ROWS} == KINDS.keys()
    unbounded = {"ipv6Support", "disableConntrackInvalidCheck", "bpfEnabled"}  # booleans: another boolean has a row
    assert {name for name in FIELDS if any(name in row.good + row.bad for row in FELIX)} == FIELDS.keys() - unbounded


def test_all_rows_together_give_all_their_findings() -> None:
    bad = [row for row in ROWS if row.bad_metadata == row.good_metadata == "{name: x}"]
    texts = [row.refused(schema.API_VERSIONS[0]).replace("{name: x}", f"{{name: x{at}}}") for at, row in enumerate(bad)]
    assert len(findings("---\n".join(texts))) == len(bad)

"""What ``enforcer export --follow`` keeps announced while the policy has a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.cli.acts import GuardError
from enforcer.cli.export import _Exporter
from enforcer.datastore.open import FILES, Place

NODE = "jasper"
POLICY = f"""\
{{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {{name: h, labels: {{role: edge}}}},
  spec: {{node: {NODE}, interfaceName: eth0, expectedIPs: [10.0.0.1]}}}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: dos}}
spec:
  selector: role == 'edge'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {{action: Deny, source: {{selector: deny == 'all'}}}}
"""
LIST = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bots, labels: {deny: all}}
spec: {nets: [203.0.113.0/24]}
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """The file of the list, beside that of the policy."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    path = tmp_path / "list.yaml"
    path.write_text(LIST)
    return path


def exporter_of(folder: Path) -> _Exporter:
    place = Place(FILES, [folder], emergency=folder / "acts")
    return _Exporter(place, NODE, None, None, destinations=True)


@pytest.mark.parametrize("content", ["[", LIST.replace("/24", "/33")], ids=["a file that is no YAML", "a wrong CIDR"])
def test_a_list_that_becomes_faulty_stays_announced_as_it_stays_enforced(
    listed: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exporter = exporter_of(listed.parent)
    first = exporter.select().rules
    assert [str(rule.flow.source) for rule in first] == ["203.0.113.0/24"]
    listed.write_text(content)
    for _ in range(2):
        assert exporter.select().rules == first
    said = capsys.readouterr().err
    assert said.count(f"warning: {listed}:") == 1, "each fault is told once"
    assert "GlobalNetworkSet bots" in said


def test_a_list_that_is_removed_is_withdrawn(listed: Path) -> None:
    exporter = exporter_of(listed.parent)
    assert exporter.select().rules
    listed.unlink()
    assert not exporter.select().rules


def test_nothing_is_exported_of_a_policy_with_a_list_that_was_never_good(listed: Path) -> None:
    """Replacing a set upstream with what is left would open it to the sources of the faulty list."""
    (listed.parent / "other.yaml").write_text(LIST.replace("bots", "others").replace("/24", "/33"))
    with pytest.raises(GuardError, match="unknown what GlobalNetworkSet others denies"):
        exporter_of(listed.parent).select()

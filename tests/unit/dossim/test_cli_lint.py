"""``dossim lint`` as users see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dossim.cli import main
from dossim.cli.lint import LEVELS
from dossim.lint import Level
from enforcer.cli.facts_view import facts_as_dict
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Mode
from tests.unit.dossim.lint.policies import ENDPOINT, net_set, policy

POLICIES = Path(__file__).parents[3] / "scenarios" / "policies"
# A note (failsafes go past the first entry) and an error.
FAULTY = ENDPOINT + policy('action: Deny, source: {nets: ["8.8.8.8/32"]}', "action: Allow", "action: Deny")


def dossim(*words: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin)


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_shipped_is_worth_notes_at_most(path: Path) -> None:
    result = dossim("lint", path)
    assert result.exit_code == 0, result.output
    assert all(": note: " in line for line in result.stdout.splitlines())


def test_findings_are_lines_and_their_number_is_on_stderr() -> None:
    result = dossim("lint", "-", "--level", "error", stdin=FAULTY)
    assert result.exit_code == 1
    assert result.stdout == (
        "<stdin>:19:7: error: gnp/p ingress[2] (Deny) never acts: gnp/p ingress[1] (Allow, <stdin>:18:7) decides every "
        "packet it matches [shadowed-entry]\n"
    )
    assert result.stderr == "1 error\n"


@pytest.mark.parametrize(("level", "lines"), [("note", 2), ("warning", 1), ("error", 1)])
def test_the_least_level(level: str, lines: int) -> None:
    result = dossim("lint", "-", "--level", level, stdin=FAULTY)
    assert (len(result.stdout.splitlines()), result.exit_code) == (lines, 1)


def test_levels_are_those_of_the_linter() -> None:
    assert list(LEVELS) == [str(level) for level in Level]


def test_nothing_found() -> None:
    result = dossim("lint", "-", stdin=ENDPOINT)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing found\n")


def test_json_and_sarif_are_all_of_stdout() -> None:
    found = json.loads(dossim("lint", "-", "--format", "json", stdin=FAULTY).stdout)
    assert found["schema"] == "dossim/lint/v1"
    log = json.loads(dossim("lint", "-", "--format", "sarif", stdin=FAULTY).stdout)
    assert len(log["runs"][0]["results"]) == len(found["findings"]) == 2


def test_facts_of_a_host(tmp_path: Path) -> None:
    modes = {mode: Probe(Answer.NO, "no XDP here") for mode in Mode}
    facts = tmp_path / "jasper.json"
    facts.write_text(json.dumps(facts_as_dict(HostFacts("jasper", interfaces=(InterfaceFacts("eth0", modes=modes),)))))
    text = ENDPOINT + policy('action: Deny, source: {nets: ["8.8.8.8/32"]}')
    assert "no XDP here" not in dossim("lint", "-", stdin=text).stdout
    assert "no XDP here" in dossim("lint", "-", "--host", facts, stdin=text).stdout


def test_lines_of_cidrs_are_found_in_files(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(ENDPOINT + net_set("deny", "deny", "8.8.8.8", "8.8.8.0/24") + policy("action: Deny"))
    assert f"{path}:12:7: note: gns/deny: 1 of its 2 CIDRs" in dossim("lint", path).stdout


def test_a_node_that_is_none() -> None:
    result = dossim("lint", "-", "--node", "opal", stdin=FAULTY)
    assert (result.exit_code, result.stderr) == (
        2,
        "error: --node opal: the policy has no HostEndpoint of that node, only of jasper\n",
    )


def test_an_invalid_policy_is_refused_as_ever() -> None:
    result = dossim("lint", "-", stdin="kind: Tier\n")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: <stdin>:")


def test_help_has_an_example() -> None:
    assert "dossim lint" in dossim("lint", "--help").stdout.split("Example:")[1]

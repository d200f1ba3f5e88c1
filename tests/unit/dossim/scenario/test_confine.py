"""A scenario can read only files below its folder and those its user allows, and prints nothing of other files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dossim.cli import main
from dossim.scenario.findings import InvalidScenario
from dossim.scenario.load import load_scenario
from tests.support.unusable import UNUSABLE

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parents[4]
HOW_TO = ROOT / "scenarios" / "policies" / "how-to.yaml"
SECRET = "machine git.example.com login root password hunter2\n"
TRAFFIC = '[{"generate": "syn-flood", "count": 1, "sources": "203.0.113.1", "label": "a"}]'


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite with scenarios/ and policies/ side by side, and a secret outside the suite."""
    suite = tmp_path / "suite"
    (suite / "scenarios" / "own").mkdir(parents=True)
    (suite / "policies").mkdir()
    shutil.copy(HOW_TO, suite / "policies")
    shutil.copy(HOW_TO, suite / "scenarios" / "own")
    (tmp_path / ".netrc").write_text(SECRET)
    (tmp_path / "secret.yaml").write_text(SECRET)
    return suite


def scenario(suite: Path, policy: str, traffic: str = TRAFFIC) -> Path:
    path = suite / "scenarios" / "it.scenario.yaml"
    path.write_text(f"name: x\npolicy: [{json.dumps(policy)}]\ntraffic: {traffic}\n")
    return path


def dossim(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(InvalidScenario) as caught:
        load_scenario(path, **options)  # type: ignore[arg-type]  # of several types
    assert "hunter2" not in str(caught.value)
    assert "machine" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("policy", ["own/how-to.yaml", "own", "./own/../own/how-to.yaml"])
def test_below_its_folder_all_may_be_read(suite: Path, policy: str) -> None:
    assert load_scenario(scenario(suite, policy)).resources.policies


def test_a_sibling_needs_the_folder_that_was_searched_or_leave(suite: Path) -> None:
    path = scenario(suite, "../policies/how-to.yaml")
    assert "--allow-path" in refusal(path)
    assert load_scenario(path, root=suite).resources.policies
    assert load_scenario(path, allow=[suite / "policies"]).resources.policies
    assert dossim("validate", path).exit_code == 2
    assert dossim("validate", path, "--allow-path", suite / "policies").exit_code == 0
    assert dossim("validate", suite).exit_code == 0
    assert dossim("run", "--predict-only", path).exit_code == 2
    assert dossim("run", "--predict-only", path, "--allow-path", suite / "policies").exit_code == 0
    assert dossim("run", "--predict-only", suite).exit_code == 0


def test_the_whole_file_system_is_no_suite(suite: Path) -> None:
    assert "is outside" in refusal(scenario(suite, "../policies/how-to.yaml"), root=Path("/"))


OUTSIDE = [
    "../../.netrc",
    "../../secret.yaml",
    "..",
    "../..",
    "/",
    "/etc/passwd",
    "/proc/self/environ",
    "~/.netrc",
    "/dev/stdin",
]


@pytest.mark.parametrize("policy", OUTSIDE)
def test_a_policy_elsewhere_is_refused_and_nothing_of_it_shown(suite: Path, policy: str) -> None:
    assert "policy[0]: " in refusal(scenario(suite, policy))


@pytest.mark.parametrize("capture", [*OUTSIDE, "a\0b", "x" * 5000])
def test_a_capture_elsewhere_is_refused(suite: Path, capture: str) -> None:
    row = json.dumps([{"capture": capture, "label": "a"}])
    assert "traffic[0].capture: " in refusal(scenario(suite, "own", row))


def test_links_that_lead_out_are_refused(suite: Path, tmp_path: Path) -> None:
    own = suite / "scenarios" / "own"
    (own / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    for policy in ("own/link.yaml", "own"):
        assert "is outside" in refusal(scenario(suite, policy))
    (own / "link.yaml").unlink()
    (own / "folder").symlink_to(tmp_path)
    for policy in ("own/folder/secret.yaml", "own"):
        assert "is outside" in refusal(scenario(suite, policy))
    (own / "folder").unlink()
    (own / "loop").symlink_to(own)
    assert load_scenario(scenario(suite, "own")).resources.policies


def test_a_scenario_that_is_a_link_is_refused(suite: Path, tmp_path: Path) -> None:
    path = suite / "scenarios" / "it.scenario.yaml"
    path.symlink_to(tmp_path / ".netrc")
    assert "leads to" in refusal(path)
    for result in (dossim("validate", suite), dossim("run", path), dossim("run", suite)):
        assert result.exit_code == 2
        assert "hunter2" not in result.output


def test_other_files_of_the_suite_are_no_policy_and_not_shown(suite: Path) -> None:
    (suite / "scenarios" / "own" / ".git-config").write_text(SECRET)
    assert "ends in .yaml" in refusal(scenario(suite, "own/.git-config"))
    for text in (SECRET, f"[{SECRET.strip()}]", f"password: hunter2 {SECRET}", "machine: *hunter2", "!machine hunter2"):
        (suite / "scenarios" / "own" / "other.yaml").write_text(text)
        assert "holds no Calico resource" in refusal(scenario(suite, "own/other.yaml"))


def test_validate_and_lint_do_not_follow_links_out_of_a_directory(suite: Path, tmp_path: Path) -> None:
    (suite / "policies" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    for verb in ("validate", "lint"):
        result = dossim(verb, suite / "policies")
        assert result.exit_code == 2
        assert "is outside" in result.output
        assert "hunter2" not in result.output
        assert "is outside" not in dossim(verb, suite / "policies", "--allow-path", tmp_path).output


@pytest.mark.parametrize("kind", UNUSABLE)
def test_only_regular_files_of_some_size_are_scenarios(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it.scenario.yaml"
    UNUSABLE[kind](path)
    for result in (dossim("run", path), dossim("validate", path)):
        assert result.exit_code == 2
        assert "it.scenario.yaml" in result.output


def test_pytest_confines_to_its_rootdir_and_what_is_allowed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    outside, inside = pytester.path / "outside", pytester.path / "suite"
    for folder in (outside, inside / "policies", inside / "scenarios"):
        folder.mkdir(parents=True)
    shutil.copy(HOW_TO, outside)
    shutil.copy(HOW_TO, inside / "policies")
    (inside / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(inside)
    path = scenario(inside, "../policies/how-to.yaml")
    collect = ("-p", "dossim", "--collect-only", "-q")
    assert pytester.runpytest_inprocess(*collect, path).ret == 0
    scenario(inside, "../../outside/how-to.yaml")
    refused = pytester.runpytest_inprocess(*collect, path)
    assert refused.ret != 0
    refused.stdout.fnmatch_lines(["*is outside*"])
    assert pytester.runpytest_inprocess(*collect, path, f"--dossim-allow-path={outside}").ret == 0
    (inside / "pytest.ini").write_text("[pytest]\ndossim_allow_path = ../outside\n")
    assert pytester.runpytest_inprocess(*collect, path).ret == 0

"""Names in scenarios and policies are untrusted: every report and diagram escapes them."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from dossim.cli import main
from dossim.report.html import html
from dossim.report.json import dumps, run_as_dict
from dossim.report.junit import junit
from dossim.report.view import View, view_of_scenario
from dossim.scenario.load import load_scenario
from dossim.scenario.run import ScenarioRunner
from enforcer.model.choices import ModeChoice
from tests.unit.dossim.test_pytest_plugin import REFUSE
from tests.unit.enforcer.test_printable import HOSTILE, harmless

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parents[4]
NAMES = HOSTILE | {
    "script": "</title><script>alert(1)</script>",
    "attribute": '" onload="alert(1)',
    "template": "{{ 7 * 7 }}{% raw %}",
    "markup": "[bold red]x[/bold red]",
    "cdata": "]]> <!-- &amp; &#0;",
}


def scenario(folder: Path, name: str) -> Path:
    path = folder / "it.scenario.yaml"
    traffic = {
        "generate": "syn-flood",
        "count": 2,
        "sources": "203.0.113.0/24",
        "label": "a",
        "destination": "10.0.0.1",
    }
    expect = [{"label": "a", "fate": "delivered"}]
    document = {"name": name, "description": name, "policy": [], "traffic": [traffic], "expect": expect}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    loaded = load_scenario(scenario(tmp_path_factory.mktemp("s"), "a name"))
    return view_of_scenario(ScenarioRunner(loaded).predict(ModeChoice.AUTO))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_reports_keep_names_as_text(view: View, name: str) -> None:
    named = replace(view, title=name, description=name, interface=name, policy=(name,), capture=name)
    page = html([named], title=name)
    assert harmless(page)
    assert {"script", "bold"} & tags_of(page) == set()
    assert 'onload="' not in page
    xml = junit([(name, named)])
    assert harmless(xml)
    assert ElementTree.fromstring(xml).find(".//testcase") is not None
    text = dumps(run_as_dict([(name, named)]))
    assert harmless(text)
    assert json.loads(text)["items"][0]["scenario"] == name


def tags_of(page: str) -> set[str]:
    found: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            found.add(tag)

    Tags().feed(page)
    return found


@pytest.mark.parametrize("name", [name for name in NAMES.values() if "\udc9b" not in name])
def test_run_prints_a_name_on_one_line_and_harmless(tmp_path: Path, name: str) -> None:
    plain = CliRunner().invoke(main, ["run", "--predict-only", str(scenario(tmp_path, "a name"))])
    result = CliRunner().invoke(main, ["run", "--predict-only", str(scenario(tmp_path, name))])
    assert result.exit_code == 1, result.output
    assert harmless(result.output)
    assert len(result.output.splitlines()) == len(plain.output.splitlines())


@pytest.mark.slow
def test_pytest_prints_names_and_paths_harmless(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CI", "1")
    pytester.makeconftest(REFUSE)  # no drill is needed here
    folder = pytester.path / "\x9b31m\n::error::x"
    folder.mkdir(parents=True)
    scenario(folder, "\x1b]0;x\x07\n::set-output name=a::b")
    result = pytester.runpytest_subprocess("-p", "dossim", "-rA", "-v")
    lines = [line for line in result.outlines if not line.startswith(("rootdir:", "cachedir:"))]
    assert any("set-output" in line for line in lines)
    assert harmless("\n".join(lines))


INTERFACE = '"]\n  click A href "http://x"; <img src=x onerror=alert(1)>\x1b[31m'


@pytest.mark.parametrize("form", ["text", "json", "mermaid", "dot"])
def test_a_plan_s_drawing_keeps_names_as_text(tmp_path: Path, form: str) -> None:
    facts = tmp_path / "facts.yaml"
    answers = {mode: {"answer": "yes"} for mode in ("native", "generic")}
    facts.write_text(json.dumps({"node": "jasper", "interfaces": [{"name": "eth0", "modes": answers}]}))
    plan = ["plan", "-p", str(ROOT / "scenarios/policies/how-to.yaml"), "--host", str(facts), "--format", form]
    plain = CliRunner().invoke(main, plan)
    assert plain.exit_code == 0, plain.output
    policy = tmp_path / "any.yaml"
    policy.write_text(
        (ROOT / "scenarios/policies/how-to.yaml").read_text().replace("interfaceName: eth0", 'interfaceName: "*"')
    )
    facts.write_text(json.dumps({"node": "jasper", "interfaces": [{"name": INTERFACE, "modes": answers}]}))
    plan[2] = str(policy)
    hostile = CliRunner().invoke(main, plan)
    assert hostile.exit_code == 0, hostile.output
    assert harmless(hostile.output)
    assert "<img" not in hostile.output or form in ("text", "json", "dot")
    assert len(hostile.output.splitlines()) == len(plain.output.splitlines())

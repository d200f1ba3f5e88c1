"""Every command shown in README.md and docs/ exists, accepts the shown options, and works.

Commands that need neither root nor traffic are run, in a folder with the files that the pages mention. For all others,
the options are parsed as the command does.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from dossim.cli import main as dossim
from dossim.packet.capture import Capture
from enforcer.cli.facts_view import facts_as_dict
from enforcer.cli.main import main as enforcer
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Backend, Mode
from tests.support.frames import ME4, ethernet, ipv4, segment

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")] + sorted(ROOT.glob("docs/*.md"))
COMMANDS: dict[str, click.Command] = {"dossim": dossim, "enforcer": enforcer}
# These need neither root nor traffic and are fast: they are run as shown, unless they ask for a cluster.
HARMLESS = {"validate", "lint", "plan", "selector", "explain", "predict", "suggest"}
CLUSTER = "--scheduler"
FOUND = 1  # lint found something: not an error of the page

_FENCED = re.compile(r"^ *```[a-z]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMENT = re.compile(r"\s#\s.*$")
_BEFORE = re.compile(r"^(?:sudo |[A-Z_]+=\S+ |\.venv/bin/)*")
_SHELL = {">", ">>", "|", "&&", ";", "<"}


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it."""

    page: str
    words: tuple[str, ...]
    fenced: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def shown() -> Iterator[Shown]:
    for page in PAGES:
        text = page.read_text()
        fenced = [line for block in _FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        inline = [code for code in _INLINE.findall(_FENCED.sub("", text)) if " " in code]
        for line, is_fenced in [*((line, True) for line in fenced), *((code, False) for code in inline)]:
            bare = _BEFORE.sub("", _COMMENT.sub("", line.strip()))
            if bare.split(" ")[0] in {*COMMANDS, "./run"}:
                yield Shown(page.name, tuple(_without_shell(shlex.split(bare))), is_fenced)


def _without_shell(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word in _SHELL:
            return
        yield word


ALL = list(dict.fromkeys(shown()))
OF_CLICK = [item for item in ALL if item.words[0] in COMMANDS]
RUNNABLE = [item for item in OF_CLICK if item.fenced and item.words[1] in HARMLESS and CLUSTER not in item.words]
OF_RUN = [item for item in ALL if item.words[0] == "./run"]


def test_commands_are_found() -> None:
    """At least some of each kind, so that the tests below check something."""
    assert len(RUNNABLE) >= 7
    assert len(OF_CLICK) >= 30
    assert len(OF_RUN) >= 5


@pytest.mark.parametrize("item", OF_CLICK, ids=str)
def test_its_options_exist_and_take_what_is_shown(item: Shown) -> None:
    command, words = COMMANDS[item.words[0]], list(item.words[1:])
    inner = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(inner, words[0])
        assert found is not None, f"{item}: no such command"
        command, inner = found, click.Context(found, parent=inner, info_name=words.pop(0))
    values, rest, _ = command.make_parser(inner).parse_args(words)
    assert not rest, f"{item}: nothing takes {rest}"
    for parameter in command.get_params(inner):
        value = values.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type_cast_value(inner, value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the pages assume: a policy, captures of an attack and of what came before, a host's output of
    ``enforcer probe``.
    """
    for name in ("policy", "policies"):
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / "scenarios" / "policies" / "how-to.yaml", tmp_path / name)
    packet = ipv4(
        segment(17, "203.0.113.9", ME4, (123, 9), b"attack"), source="203.0.113.9", destination=ME4, protocol=17
    )
    attack = tmp_path / "attack.pcap"
    Capture.from_frames([ethernet(packet, 0x0800)] * 40).write(attack)
    for again in ("attack.pcap00", "attack.pcap01", "attack.pcap02", "attack.pcap.zst"):  # read as what they hold
        shutil.copy(attack, tmp_path / again)
    usual = ipv4(segment(17, "192.0.2.9", ME4, (7, 9), b""), source="192.0.2.9", destination=ME4, protocol=17)
    Capture.from_frames([ethernet(usual, 0x0800)] * 40).write(tmp_path / "before.pcap")
    modes = {mode: Probe(Answer.YES) for mode in Mode}
    facts = HostFacts(
        "jasper", interfaces=(InterfaceFacts("eth0", modes=modes),), backends={Backend.IPTABLES: Probe(Answer.YES)}
    )
    (tmp_path / "jasper.yaml").write_text(yaml.safe_dump(facts_as_dict(facts)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("item", RUNNABLE, ids=str)
def test_it_does_what_it_is_shown_for(item: Shown) -> None:
    result = CliRunner().invoke(COMMANDS[item.words[0]], item.words[1:])
    assert result.exit_code == 0 or (result.exit_code == FOUND and item.words[1] == "lint"), result.output
    assert result.stdout


@pytest.mark.parametrize("item", OF_RUN, ids=str)
def test_it_is_a_verb_of_run(item: Shown) -> None:
    """``bench`` and ``kernels`` pass their options on: these must occur in the program that parses them."""
    verb, *rest = item.words[1:]
    assert f"\n{verb})" in (ROOT / "run").read_text(), f"{item}: no such verb"
    if verb == "test":  # the remaining arguments are pytest's
        assert not [path for path in rest if path.startswith("tests/") and not (ROOT / path).exists()], str(item)
        return
    takers = {
        "bench": "bench/bench_xdp.py",
        "kernels": "tests/kernels/boot.py",
        "lock": "run",
        "package": "tools/package/__main__.py",
    }
    for option in (word for word in rest if word.startswith("--") and word != "--"):
        assert f"{option}" in (ROOT / takers[verb]).read_text(), f"{item}: no such option"

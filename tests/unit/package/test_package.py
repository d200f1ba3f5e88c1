"""``./run package``: what it refuses, man pages, versions. What it builds is tested by tests/package."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import yaml

from enforcer import __version__
from tools.package import __main__ as package
from tools.package.deb import PACKAGING, Build, Refused, build_of
from tools.package.manpages import bash_completion, write_pages
from tools.package.releases import RELEASES


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--version", "1.x"], "argument --version: expected a version such as 1.2.3, found '1.x'"),
        (["--version", "1.0; rm"], "expected a version such as 1.2.3, found '1.0; rm'"),
        (["--release", "woody"], "invalid choice: 'woody' (choose from"),
        (["--test", "--release", "bookworm"], "--test needs the packages of all releases: leave out --release"),
        (["--test", "--version", "9.9"], "--test needs the version of the tree: leave out --version"),
        (["--test", "--no-image"], "--test needs the image: leave out --no-image"),
        (["tests/unit"], "arguments for pytest without --test: tests/unit"),
    ],
)
def test_what_is_wrong_is_named(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        package.main(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_an_output_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        package.main(["--no-image", "--output", str(tmp_path / "file")])
    assert ended.value.code == f"./run package: {tmp_path / 'file'}: File exists"


def test_the_time_of_the_source_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    with pytest.raises(Refused, match="SOURCE_DATE_EPOCH: expected seconds since 1970, found 'today'"):
        build_of(RELEASES[0])


@pytest.mark.parametrize(
    ("version", "wanted"), [("1.2.3", "1.2.3+deb12"), ("1.2rc1", "1.2~rc1+deb12"), ("1.2a1", "1.2~a1+deb12")]
)
def test_dpkg_orders_versions_as_python_does(version: str, wanted: str) -> None:
    assert Build(RELEASES[0], version, "amd64", 0).debian_version == wanted


def test_the_manifests_name_the_image_of_this_version() -> None:
    base = yaml.safe_load((PACKAGING / "kubernetes/base/kustomization.yaml").read_text())
    assert [image["newTag"] for image in base["images"]] == [__version__]


@click.group()
def tool() -> None:
    """A tool.

    ~ and ^ and \\ and 'quotes' at the start of a line.
    """


@tool.command()
@click.option("--a-b", metavar="X", help="An option - with a dash.")
def sub(a_b: str) -> None:
    """Do.

    \b
    .one line
      another
    """


def test_a_page_has_what_help_says(tmp_path: Path) -> None:
    tool.name = "tool"
    pages = write_pages(tool, tmp_path, version="1.2", when_s=0)
    assert [page.name for page in pages] == ["tool.8", "tool-sub.8"]
    first, second = (page.read_text() for page in pages)
    assert first.startswith('.TH "TOOL" "8" "1970\\-01\\-01" "enforcer 1.2"'.replace("\\-", "-"))
    assert "tool \\- A tool\n" in first
    assert "\\(ti and \\(ha and \\e and 'quotes'" in first
    assert ".SH COMMANDS\n.TP\n.B sub\nDo.\n" in first
    assert ".BR tool\\-sub (8)" in first
    assert ".TP\n.B \\-\\-a\\-b X\nAn option \\- with a dash.\n" in second
    assert ".nf\n\\&.one line\n  another\n.fi\n" in second
    assert ".BR tool (8)" in second


def test_the_completion_is_that_of_the_command() -> None:
    assert "_TOOL_COMPLETE=bash_complete" in bash_completion(tool, "tool")

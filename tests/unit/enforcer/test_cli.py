"""The enforcer command: exit codes, error messages, help with examples. Tests of its effects are in tests/kernel."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from enforcer.cli import support
from enforcer.cli.console import console_for, line
from enforcer.cli.main import main
from enforcer.cli.support import CommandGroup, emit
from enforcer.datastore import apiconfig
from enforcer.model.errors import (
    Finding,
    InternalError,
    KernelError,
    PolicyError,
    Position,
    PrivilegeError,
    UsageError,
)

COMMANDS = (
    *("probe", "apply", "confirm", "run", "status", "counters", "detach"),
    *("deny", "allow", "list", "prune"),
    *("feed", "export"),
)
POLICY = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: dos}
spec: {selector: all(), doNotTrack: true, applyOnForward: true, ingress: [{action: Deny}]}
"""


def enforcer(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "dos.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "_effective_capabilities", lambda: 0)


@pytest.fixture
def unconfigured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says where a datastore is."""
    monkeypatch.setattr(apiconfig, "DEFAULT_FILE", tmp_path / "absent.cfg")
    for name in filter(None, apiconfig.FIELDS.values()):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"CALICO_{name}", raising=False)


def test_every_command_is_listed_with_a_sentence() -> None:
    result = enforcer("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    result = enforcer(command, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    enforcer {command}" in result.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["aply"], "No such command 'aply'", id="a command that is none"),
        pytest.param(["apply"], "Missing option '-f'", id="no policy"),
        pytest.param(["apply", "-f", "/nowhere.yaml"], "does not exist", id="a policy that is not there"),
        pytest.param(["apply", "-f", "/", "--mode", "fast"], "'fast' is not one of", id="a mode that is none"),
        pytest.param(["apply", "-f", "/", "--confirm-within", "1s"], "expected 5s to 60m, found '1s'", id="too short"),
        pytest.param(
            ["apply", "-f", "/", "--confirm-within", "60s"], "is for --tracked enforce", id="a trial of nothing"
        ),
        pytest.param(["run", "-f", "/", "--confirm-within", "1m"], "is for --tracked enforce", id="by an agent"),
        pytest.param(["run", "-f", "/", "--datastore", "paper"], "'paper' is not", id="a datastore that is none"),
        pytest.param(["run"], "--datastore files needs -f: a directory or file", id="an agent of nothing"),
        pytest.param(["run", "--datastore", "etcd", "-f", "/"], "-f is for --datastore files", id="files and etcd"),
        pytest.param(
            ["run", "--datastore", "etcd"], "ETCD_ENDPOINTS: no endpoint; expected https://", id="no endpoint"
        ),
        pytest.param(
            ["run", "--datastore", "etcd", "--datastore-config", "/nowhere.cfg"],
            "/nowhere.cfg: cannot be read: No such file",
            id="a configuration that is not there",
        ),
        pytest.param(
            ["run", "-f", "/", "--datastore-config", "/etc/hosts"],
            "--datastore-config is for a datastore other than files",
            id="a configuration of files",
        ),
        pytest.param(["status", "-o", "xml"], "'xml' is not one of", id="a format that is none"),
    ],
)
@pytest.mark.usefixtures("unconfigured")
def test_bad_usage_ends_with_2(words: list[str], says: str) -> None:
    result = enforcer(*words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


@pytest.mark.usefixtures("unconfigured", "unprivileged")
@pytest.mark.parametrize("package", ["grpc", "google.protobuf"])
def test_without_its_packages_etcd_ends_with_3_and_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", "http://127.0.0.1:1")
    for name in [name for name in sys.modules if name.startswith((f"{package}.", "enforcer.datastore.etcd"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = enforcer("run", "--datastore", "etcd", "--state-dir", str(tmp_path))
    assert result.exit_code == 3
    assert result.stderr.startswith("error: --datastore etcd needs the Python packages grpcio and protobuf (")
    assert result.stderr.endswith("pip install 'dossim[etcd]'\n")


@pytest.mark.usefixtures("unconfigured", "unprivileged")
def test_a_certificate_that_is_absent_ends_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", "https://127.0.0.1:1")
    monkeypatch.setenv("ETCD_CA_CERT_FILE", str(tmp_path / "ca.pem"))
    result = enforcer("run", "--datastore", "etcd", "--state-dir", str(tmp_path))
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"error: environment: ETCD_CA_CERT_FILE: {tmp_path}/ca.pem: cannot be read: No such file or directory\n"
    )


@pytest.mark.usefixtures("unprivileged")
def test_bad_policy_ends_with_2_and_all_findings_before_privilege_is_checked(policy: Path) -> None:
    policy.write_text(POLICY.replace("applyOnForward: true, ", "").replace("all()", "has("))
    result = enforcer("apply", "-f", str(policy))
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert all(line.startswith(f"error: {policy}:4:") for line in errors)


@pytest.mark.usefixtures("unprivileged")
@pytest.mark.parametrize(
    "words", [["probe"], ["status"], ["counters"], ["detach"], ["confirm"], ["apply", "-f"], ["run", "-f"]]
)
def test_without_privilege_every_command_ends_with_3_and_the_way_out(words: list[str], policy: Path) -> None:
    result = enforcer(*words, *([str(policy)] if "-f" in words else []))
    assert result.exit_code == 3
    every = "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON"
    needed = every if words[0] in ("probe", "apply", "run") else "CAP_NET_ADMIN and CAP_NET_RAW"
    assert f"needs {needed}; run as root" in result.stderr
    assert ("'dossim plan'" in result.stderr) == (words[0] in ("probe", "apply", "run"))


# -- what both commands share ------------------------------------------------------------------------------------


def frame(error: BaseException | None = None, *, code: int | None = None) -> CommandGroup:
    @click.group(cls=CommandGroup)
    def group() -> None: ...

    @group.command()
    @click.option("-v", "--verbose", is_flag=True)
    @click.pass_context
    def act(context: click.Context, verbose: bool) -> None:
        if error:
            raise error
        if code is not None:
            context.exit(code)

    return group  # type: ignore[return-value]  # a click group


FINDINGS = [Finding(Position("a.yaml", 3, 7), "spec.nets[0]", "no CIDR"), Finding(Position("b.yaml"), "", "empty")]


def caused_by(cause: BaseException, error: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


NO_MEMORY = f"error: {support.OUT_OF_MEMORY}\n"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        pytest.param(UsageError("no interface x"), 2, "error: no interface x\n", id="usage"),
        pytest.param(
            PolicyError(FINDINGS), 2, "error: a.yaml:3:7: spec.nets[0]: no CIDR\nerror: b.yaml: empty\n", id="policy"
        ),
        pytest.param(PrivilegeError("run as root"), 3, "error: run as root\n", id="host"),
        pytest.param(InternalError("1 is 2"), 4, "error: 1 is 2\n", id="bug that was foreseen"),
        pytest.param(KeyboardInterrupt(), 130, "\ninterrupted\n", id="control-c"),
        pytest.param(MemoryError(), 3, NO_MEMORY, id="no memory"),
        pytest.param(OSError(errno.ENOMEM, "Cannot allocate memory"), 3, NO_MEMORY, id="no memory, says the kernel"),
        pytest.param(caused_by(MemoryError(), ValueError("an array")), 3, NO_MEMORY, id="no memory, and so a fault"),
        pytest.param(
            ImportError("liblzma.so.5: failed to map segment from shared object"), 3, NO_MEMORY, id="none for a library"
        ),
        pytest.param(RuntimeError("can't start new thread"), 3, NO_MEMORY, id="none for a thread"),
    ],
)
def test_errors_become_exit_codes_and_sentences(error: BaseException, code: int, says: str) -> None:
    result = CliRunner().invoke(frame(error), ["act"])
    assert (result.exit_code, result.stderr) == (code, says)
    assert "Traceback" not in result.output


def test_a_bug_ends_with_4_and_shows_its_traceback_only_on_request() -> None:
    quiet, loud = (CliRunner().invoke(frame(ZeroDivisionError("oh")), ["act", *more]) for more in ([], ["-v"]))
    assert quiet.exit_code == loud.exit_code == 4
    assert "ZeroDivisionError: oh" in quiet.stderr
    assert "this is a bug" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr


def test_a_kernels_whole_answer_is_shown_on_request() -> None:
    error = KernelError("load x: R2 invalid", number=22, log="1: line\n2: line")
    quiet, loud = (CliRunner().invoke(frame(error), ["act", *more]) for more in ([], ["-v"]))
    assert quiet.stderr == "error: load x: R2 invalid: EINVAL (Invalid argument)\n"
    assert loud.stderr == quiet.stderr + "1: line\n2: line\n"


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_may_end_with_a_code_of_its_own(code: int) -> None:
    assert CliRunner().invoke(frame(code=code), ["act"]).exit_code == code


def test_json_and_yaml_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"b": [1, None], "a": {"text": "x: y"}}
    emit(data, "json", lambda console: None)
    assert json.loads(capsys.readouterr().out) == data
    emit(data, "yaml", lambda console: None)
    assert capsys.readouterr().out == "b:\n- 1\n- null\na:\n  text: 'x: y'\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "no_color", "coloured"),
    [
        pytest.param(Terminal(), False, True, id="a terminal"),
        pytest.param(Terminal(), True, False, id="a terminal, and NO_COLOR"),
        pytest.param(io.StringIO(), False, False, id="no terminal"),
    ],
)
def test_colours_are_for_terminals(
    stream: io.StringIO, no_color: bool, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    console_for(stream).print(line("text", "red"))
    assert ("\x1b[31m" in stream.getvalue()) is coloured


def test_lines_for_programs_are_not_broken() -> None:
    stream = io.StringIO()
    console_for(stream).print("x" * 500)
    assert stream.getvalue() == "x" * 500 + "\n"


def test_help_imports_nothing_that_needs_libbpf_or_netlink() -> None:
    script = "import sys, enforcer.cli; print([m for m in sys.modules if m.startswith(('pyroute2', 'iptc', 'numpy'))])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "--node", ""),
        ("apply", "--pin-root", ""),
        ("apply", "-f", ""),
        ("run", "--state-dir", ""),
        ("run", "-f", ""),
        ("run", "--node", ""),
    ],
)
def test_what_is_empty_is_neither_the_default_nor_the_current_directory(policy: Path, words: tuple[str, ...]) -> None:
    """A unit or script with ``--node "$NODE"`` and an empty variable would enforce nothing."""
    verb, *others = words
    result = enforcer(verb, "-f", str(policy), *others)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "empty value; " in result.stderr

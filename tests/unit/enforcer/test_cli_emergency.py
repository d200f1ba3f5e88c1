"""deny, allow, list and prune on real files: what they write and print, their exit codes, bad input."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from enforcer.cli import acts, acts_input
from enforcer.cli.main import main
from enforcer.datastore.files import FileStore
from enforcer.emergency.times import written
from enforcer.policy.resources import Resources
from enforcer.system import clock
from tests.unit.enforcer.emergency.test_deny import ALLOW, GOOD, OTHER
from tests.unit.enforcer.emergency.world import BOTS, DENY, ENDPOINT, policy

BAD = "198.51.100.7"
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def known_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose clock is right, without addresses, log and resolvers of its own (tests/kernel has them)."""
    monkeypatch.setattr(clock, "is_synchronized", lambda: True)
    monkeypatch.setattr(acts_input, "_own", lambda: iter(()))
    monkeypatch.setattr(acts_input, "_RESOLV_CONF", tmp_path / "absent")
    monkeypatch.setattr(acts, "SYSLOG", "/nonexistent")
    monkeypatch.setattr(acts, "_followed_here", dict)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy").mkdir()
    write(tmp_path, ENDPOINT, BOTS, policy())
    return tmp_path


def write(folder: Path, *parts: str) -> None:
    (folder / "policy" / "all.yaml").write_text("\n".join(parts))


@pytest.fixture
def run(folder: Path) -> Run:
    def run_it(command: str, *words: str, text: str | None = None) -> Result:
        where = ["--policy", str(folder / "policy"), "--emergency-dir", str(folder / "acts")]
        return CliRunner().invoke(main, [command, *words, *where], input=text)

    return run_it


def objects(folder: Path) -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted((folder / "acts").glob("*"))]


def nets(folder: Path) -> list[str]:
    return [net for item in objects(folder) for net in item["spec"]["nets"]]


def said(result: Result, code: int) -> dict[str, Any]:
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_an_act_from_its_beginning_to_its_end(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    before = time.time()
    result = run("deny", BAD, "--reason", "SYN flood")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("denied until ")
    (made,) = objects(folder)
    noted = made["metadata"]["annotations"]
    assert noted["enforcer.io/by"] == f"alice@{os.uname().nodename}"
    assert noted["enforcer.io/reason"] == "SYN flood"
    assert written(before + 4 * 3600) <= noted["enforcer.io/expires"] <= written(time.time() + 4 * 3600)
    again = run("deny", BAD, "--for", "1h")
    assert (again.exit_code, objects(folder)) == (0, [made])
    assert "already denied by gns/enforcer-deny-" in again.stdout
    longer = said(run("deny", BAD, "--for", "2d", "--reason", "still", "-o", "json"), 0)
    assert [item["outcome"] for item in longer["objects"]] == ["changed"]
    listed = said(run("list", "-o", "json"), 0)["acts"]
    assert [(item["reason"], len(item["history"]), item["set"]) for item in listed] == [("SYN flood; still", 2, "bots")]
    assert 2 * 86400 - 60 < listed[0]["left_s"] <= 2 * 86400
    shorter = run("deny", BAD, "--for", "1h", "--shorten")
    assert shorter.exit_code == 0
    assert shorter.stdout.startswith("now denied until ")
    assert said(run("list", "-o", "json"), 0)["acts"][0]["left_s"] <= 3600
    allowed = run("allow", BAD)
    assert allowed.exit_code == 0
    assert allowed.stdout.endswith(": deleted\nno emergency act and no list denies it any more\n")
    assert objects(folder) == []
    assert "no emergency act has it" in run("allow", BAD).stdout


def test_cidrs_come_from_arguments_files_and_stdin(run: Run, folder: Path) -> None:
    listed = folder / "list.txt"
    listed.write_text("# DROP\n192.0.2.64/26 ; SBL1\n\n; x\n2001:db8::/48#y\n")
    assert run("deny", BAD, "-f", str(listed)).exit_code == 0
    assert nets(folder) == ["192.0.2.64/26", "198.51.100.7/32", "2001:db8::/48"]
    assert run("deny", "-f", "-", text="8.8.4.4\n").exit_code == 0
    assert "8.8.4.4/32" in nets(folder)


def test_host_bits_are_cleared_and_said(run: Run, folder: Path) -> None:
    result = run("deny", "198.51.100.7/28", "::ffff:8.8.4.4")
    assert "198.51.100.7/28: host bits are cleared: 198.51.100.0/28" in result.stderr
    assert "8.8.4.4" not in result.stderr
    assert nets(folder) == ["8.8.4.4/32", "198.51.100.0/28"]


BAD_USAGE = [
    ((), "no CIDR: give some, or a file of them with -f"),
    (("198.51.100",), "expected an IP address or CIDR, found '198.51.100'"),
    (("198.51.100.7/33",), "expected a prefix length of 0..32"),
    ((BAD, "--for", "soon"), "expected a duration such as 30m, 4h or 2d, found 'soon'"),
    ((BAD, "--until", "23:10"), "expected a time with its offset from UTC"),
    ((BAD, "--until", "2020-01-01T00:00Z"), "is in the past"),
    ((BAD, "--for", "1h", "--permanent"), "--for, --until and --permanent exclude each other"),
    ((BAD, "--set", "bot"), "--set bot: there is no GlobalNetworkSet of this name; there are: bots"),
    ((BAD, "--set", ""), "--set: expected the name of a GlobalNetworkSet, found ''"),
    ((BAD, "-f", "/nonexistent"), "/nonexistent: cannot be read"),
    ((BAD, "--datastore", "etcd"), "--policy is for --datastore files"),
]


@pytest.mark.parametrize(
    ("words", "says"), BAD_USAGE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_usage_is_one_error(run: Run, folder: Path, words: tuple[str, ...], says: str) -> None:
    result = run("deny", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert objects(folder) == []


def test_a_file_with_a_faulty_line_names_it(run: Run, folder: Path) -> None:
    listed = folder / "list.txt"
    listed.write_text("192.0.2.64/26\n192.0.2.300\n")
    result = run("deny", "-f", str(listed))
    assert f"{listed}:2: expected an IP address or CIDR, found '192.0.2.300'" in result.stderr
    listed.write_text("# nothing\n")
    assert f"{listed}: has no CIDR" in run("deny", "-f", str(listed)).stderr


def test_a_guard_names_what_it_protects_and_how_to_insist(run: Run, folder: Path) -> None:
    result = run("deny", "192.0.2.1", BAD)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "error: 192.0.2.1 is an address of HostEndpoint jasper-eth0 (expectedIPs)",
        "error: nothing was written; --force writes it anyway",
    ]
    assert objects(folder) == []
    assert run("deny", "192.0.2.1", "--force").exit_code == 0
    assert nets(folder) == ["192.0.2.1/32"]
    never = run("deny", "0.0.0.0/0", "--force")
    assert never.exit_code == 1
    assert never.stderr.splitlines() == [
        "error: 0.0.0.0/0 is every address: refused, also with --force",
        "error: nothing was written",
    ]
    assert "--force writes" not in run("deny", "0.0.0.0/0", "192.0.2.1").stderr


def test_nothing_would_be_dropped(run: Run, folder: Path) -> None:
    write(folder, ENDPOINT, BOTS, GOOD, policy(ALLOW, DENY))
    result = run("deny", BAD)
    assert result.exit_code == 1
    assert f"nothing would be dropped of {BAD}/32: gnp/dos ingress[0] lets it pass first" in result.stderr


def test_of_several_lists_one_must_be_named(run: Run, folder: Path) -> None:
    write(folder, ENDPOINT, BOTS, OTHER, policy())
    result = run("deny", BAD)
    assert result.exit_code == 2
    assert "untracked policy denies several lists: bots, others; choose one with --set NAME" in result.stderr
    assert run("deny", BAD, "--set", "others").exit_code == 0
    assert objects(folder)[0]["metadata"]["labels"]["from"] == "feed"


def test_a_dry_run_writes_nothing(run: Run, folder: Path) -> None:
    found = said(run("deny", BAD, "--dry-run", "-o", "json"), 0)
    assert found["objects"][0]["object"]["spec"]["nets"] == [f"{BAD}/32"]
    assert objects(folder) == []
    run("deny", BAD)
    assert run("allow", BAD, "--dry-run").exit_code == 0
    assert nets(folder) == [f"{BAD}/32"]


@pytest.mark.slow
def test_a_long_list_is_several_objects_of_one_act(run: Run, folder: Path) -> None:
    text = "\n".join(f"100.64.{number >> 8}.{number & 255}" for number in range(4001))
    found = said(run("deny", "-f", "-", "-o", "json", text=text), 0)
    assert [item["cidrs"] for item in found["objects"]] == [2000, 2000, 1]
    assert len({item["act"] for item in found["objects"]}) == 1
    assert len(nets(folder)) == 4001
    again = said(run("deny", "-f", "-", "-o", "json", "--for", "5h", text=text), 0)
    assert [item["outcome"] for item in again["objects"]] == ["changed"] * 3


def test_allow_says_where_an_address_stands(run: Run, folder: Path) -> None:
    run("deny", "198.51.100.0/24")
    result = run("allow", BAD, "203.0.113.9")
    assert result.exit_code == 1
    assert "has 198.51.100.0/24, which is wider; --split replaces it with 8 CIDRs: " in result.stderr
    place = f"{folder}/policy/all.yaml:"
    assert f"still denied: 203.0.113.9/32 is in gns/bots ({place}" in result.stderr
    assert "which gnp/dos ingress[0] denies; take it out of that list, or use --exempt" in result.stderr
    assert run("allow", BAD, "--split").exit_code == 0
    assert len(nets(folder)) == 8
    stands = said(run("list", BAD, "198.51.100.8", "-o", "json"), 0)["addresses"]
    assert [item["denied_by"] for item in stands] == [[], ["gnp/dos ingress[0]"]]


def test_allow_says_how_an_address_leaves_a_feed(run: Run, folder: Path) -> None:
    fed = BOTS.replace("deny: all", 'deny: all, enforcer.io/feed: "drop"')
    write(folder, ENDPOINT, fed, policy())
    assert (
        "denies; add it to 'protected' of feeds.yaml, feed drop, or use --exempt" in run("allow", "203.0.113.9").stderr
    )


def test_an_exception_is_added_beside_the_list_of_exceptions(run: Run, folder: Path) -> None:
    nothing = run("allow", "203.0.113.9", "--exempt")
    assert nothing.exit_code == 1
    assert (
        "untracked policy has no list of exceptions: before gnp/dos ingress[0], add a rule {action: Allow"
        in nothing.stderr
    )
    write(folder, ENDPOINT, BOTS, GOOD, policy(ALLOW, DENY))
    result = run("allow", "203.0.113.9", "--exempt", "--reason", "a partner")
    assert result.exit_code == 0, result.output
    (made,) = objects(folder)
    assert made["metadata"]["labels"] == {"allow": "partners", "enforcer.io/emergency": "exempt"}
    assert "enforcer.io/expires" not in made["metadata"]["annotations"]
    refused = run("deny", "203.0.113.9")
    assert refused.exit_code == 1
    assert "the exceptions of gnp/dos ingress[0]" in refused.stderr
    assert said(run("list", "-o", "json"), 0)["acts"][0]["kind"] == "exempt"


def test_a_dry_run_of_an_exception_names_it(run: Run, folder: Path) -> None:
    write(folder, ENDPOINT, BOTS, GOOD, policy(ALLOW, DENY))
    result = run("allow", "203.0.113.9", "--exempt", "--dry-run")
    assert (result.exit_code, objects(folder)) == (0, [])
    assert re.fullmatch(r"enforcer-exempt-[0-9a-f]{12}: would be created\n", result.stdout)


def test_no_exception_undoes_the_policy(run: Run, folder: Path) -> None:
    write(folder, ENDPOINT, BOTS, GOOD, policy(ALLOW, DENY))
    result = run("allow", "0.0.0.0/0", "--exempt")
    assert (result.exit_code, objects(folder)) == (1, [])
    assert "0.0.0.0/0 is wider than /8" in result.stderr


@pytest.mark.slow
def test_as_many_are_allowed_as_were_denied(run: Run, folder: Path) -> None:
    text = "\n".join(f"100.64.{number >> 8}.{number & 255}" for number in range(4001))
    run("deny", "-f", "-", text=text)
    assert run("allow", "-f", "-", text=text).exit_code == 0
    assert objects(folder) == []
    many = "\n".join(f"203.0.113.{number}" for number in range(256))
    result = run("allow", "-f", "-", text=many)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: and 236 more"
    refused = run("allow", "-f", "-", "--split", text=text)
    assert refused.exit_code == 2
    assert "4,001 CIDRs; at most 2,000 with --split or --exempt" in refused.stderr


def test_what_is_denied_in_part_is_not_called_let_through(run: Run) -> None:
    assert run("list", "203.0.112.0/23").stdout.startswith(
        "203.0.112.0/23: not denied as a whole\n  partly in gns/bots"
    )


def test_whoever_interrupts_a_deny_is_told_what_was_written(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = os.replace

    def once(old: str, new: Path) -> None:
        if [*new.parent.glob("enforcer-*")]:
            raise KeyboardInterrupt
        replaced(old, new)

    monkeypatch.setattr(os, "replace", once)
    text = "\n".join(f"100.64.{number >> 8}.{number & 255}" for number in range(4001))
    result = run("deny", "-f", "-", text=text)
    assert result.exit_code == 130
    assert "2 of 3 objects were not written; run it again, or take the rest back with 'enforcer allow'" in result.stderr
    assert [path.suffix for path in (folder / "acts").iterdir()] == [".yaml"]


def test_acts_of_another_user_are_no_bug(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a directory may not even be looked at: below one of root's, mode 0700."""
    stat = os.stat

    def refuses(path: Any, **options: Any) -> os.stat_result:
        if str(path) == str(folder / "acts"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuses)
    result = run("list")
    assert result.exit_code == 3
    assert f"{folder}/acts: cannot be read: Permission denied" in result.stderr


def test_prune_deletes_what_ended_more_than_ten_minutes_ago(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("deny", BAD, "--for", "1h")
    run("deny", "198.51.100.8", "--for", "2h")
    later = time.time() + 3600 + 500
    monkeypatch.setattr(time, "time", lambda: later)
    assert said(run("prune", "-o", "json"), 0)["deleted"] == []
    later += 200
    assert len(said(run("prune", "--dry-run", "-o", "json"), 0)["deleted"]) == 1
    assert sorted(nets(folder)) == [f"{BAD}/32", "198.51.100.8/32"]
    monkeypatch.setattr(clock, "is_synchronized", lambda: False)
    refused = run("prune")
    assert refused.exit_code == 1
    assert "this host's clock is not synchronized (adjtimex): it would decide which acts have ended" in refused.stderr
    run("deny", "198.51.100.9")
    assert len(nets(folder)) == 3, "nor does a deny prune by such a clock"
    monkeypatch.setattr(clock, "is_synchronized", lambda: True)
    run("deny", "198.51.100.10")
    assert f"{BAD}/32" not in nets(folder)


def test_a_clock_that_is_not_synchronized_is_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "is_synchronized", lambda: False)
    result = run("deny", BAD)
    assert result.exit_code == 0
    assert "this host's clock is not synchronized (adjtimex); the end is as wrong as the clock" in result.stderr
    assert "clock" not in run("deny", "198.51.100.9", "--permanent").stderr
    assert "what is left may be wrong: the kernel says" in run("list").stdout


def test_faulty_objects_are_warnings_and_do_not_count(run: Run, folder: Path) -> None:
    (folder / "policy" / "bad.yaml").write_text(
        BOTS.replace("bots", "faulty").replace("203.0.113.0/24", "203.0.113.0/33")
    )
    result = run("deny", BAD)
    assert result.exit_code == 0
    assert "bad.yaml:5:15: spec.nets[0]: expected a prefix length" in result.stderr
    assert "is skipped: there is no good version of it" in result.stderr


def test_a_faulty_object_counts_as_the_agent_of_this_host_stored_it(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still enforces it so: what is protected stays protected."""
    path = folder / "policy" / "kept.yaml"
    kept = BOTS.replace("bots", "kept").replace("deny: all", 'enforcer.io/protected: "true"')
    path.write_text(kept)
    monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
    agent = FileStore([folder / "policy"], state=folder / "state")
    assert not agent.snapshot(Resources()).faults
    agent.keep()
    path.write_text(kept.replace("/24", "/33"))
    result = run("deny", "203.0.113.9")
    assert result.exit_code == 1
    assert "GlobalNetworkSet kept (enforcer.io/protected)" in result.stderr
    assert "keeps its last good version" in result.stderr


def test_a_datastore_that_is_away_is_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("ETCD_ENDPOINTS", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("K8S_API_ENDPOINT", f"http://127.0.0.1:{port}")
        for kind in ("etcd", "kubernetes"):
            result = CliRunner().invoke(main, ["deny", BAD, "--datastore", kind])
            assert result.exit_code == 3, result.output
            assert result.stderr.startswith(f"error: {kind} (http://127.0.0.1:{port})")


def test_a_path_that_does_not_exist(run: Run, folder: Path) -> None:
    result = CliRunner().invoke(main, ["deny", BAD, "--policy", str(folder / "absent")])
    assert (result.exit_code, f"{folder}/absent: does not exist" in result.stderr) == (2, True)
    result = CliRunner().invoke(main, ["deny", BAD])
    assert (result.exit_code, "give --policy PATH, or --datastore" in result.stderr) == (2, True)


def test_without_a_path_files_are_those_of_the_agent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"kind": "files", "paths": [str(folder / "policy")], "emergency": str(folder / "acts")}
    monkeypatch.setattr(acts, "_followed_here", lambda: state)
    assert CliRunner().invoke(main, ["deny", BAD]).exit_code == 0
    assert nets(folder) == [f"{BAD}/32"]
    state["kind"] = "etcd"
    result = CliRunner().invoke(main, ["deny", BAD])
    assert result.exit_code == 2
    assert "the agent of this host follows etcd: use --datastore etcd, or --policy for files" in result.stderr


def test_an_emergency_directory_of_others_is_refused(run: Run, folder: Path) -> None:
    (folder / "acts").mkdir()
    (folder / "acts").chmod(0o777)
    result = run("deny", BAD)
    assert result.exit_code == 3
    assert str(folder / "acts") in result.stderr


def test_each_act_is_an_event_in_the_log_of_the_host(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(10)
        monkeypatch.setattr(acts, "SYSLOG", str(tmp_path / "log"))
        name = said(run("deny", BAD, "--reason", 'a "flood"\nof', "-o", "json"), 0)["objects"][0]["act"]
        line = log.recv(4096).decode()
        assert f'enforcer: level=info msg="emergency deny" act={name} object=enforcer-deny-{name} beside=bots' in line
        assert 'reason="a \\"flood\\"\\nof"' in line
        assert "\n" not in line
        run("allow", BAD)
        assert f'msg="emergency allow" act={name}' in log.recv(4096).decode()


def test_the_peer_of_an_ssh_session_is_protected_below_sudo(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    proc = tmp_path / "proc"
    for pid, parent, words in ((os.getppid(), 77, b"A=b"), (77, 1, b"SSH_CONNECTION=198.51.100.7 5 192.0.2.1 22\0X=y")):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 1")
        (proc / str(pid) / "environ").write_bytes(words)
    monkeypatch.setattr(acts_input, "_PROC", proc)
    result = run("deny", BAD)
    assert result.exit_code == 1
    assert f"{BAD} is the peer of this SSH session" in result.stderr


def test_resolvers_gateways_and_the_datastore_are_protected(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("search x\nnameserver 198.51.100.7\nnameserver fe80::1%eth0\nnameserver nonsense\n")
    monkeypatch.setattr(acts_input, "_RESOLV_CONF", resolv)
    assert f"{BAD} is a resolver of this host ({resolv})" in run("deny", BAD).stderr
    from enforcer.datastore.open import Place

    monkeypatch.setenv("ETCD_ENDPOINTS", "https://198.51.100.8:2379,https://[2001:db8::5]:2379")
    found = {str(address): what for address, what in acts_input.facts_of(Place("etcd")).addresses}
    assert found["198.51.100.8"] == "the datastore (198.51.100.8)"
    assert found["2001:db8::5"] == "the datastore (2001:db8::5)"

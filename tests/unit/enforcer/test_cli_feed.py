"""``enforcer feed`` and ``enforcer export``: exit codes, and what is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from enforcer.cli import support
from enforcer.cli.main import main
from enforcer.policy.load import load
from tests.unit.enforcer.policy.documents import document

NODE = "jasper"
ENDPOINT = document(
    "HostEndpoint",
    f"{{node: {NODE}, interfaceName: eth0, expectedIPs: [198.51.100.9]}}",
    "{name: h, labels: {role: h}}",
)
POLICY = document(
    "GlobalNetworkPolicy",
    "{selector: role == 'h', doNotTrack: true, applyOnForward: true, types: [Ingress], "
    "ingress: [{action: Deny, source: {selector: list == 'deny'}}]}",
    "{name: dos}",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "all.yaml").write_text(f"{ENDPOINT}---\n{POLICY}")
    (tmp_path / "list").write_text("198.51.100.0/24\n203.0.113.7\n")
    (tmp_path / "feeds.yaml").write_text("feeds: [{name: drop, source: list, labels: {list: deny}}]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def enforcer(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def sync(*words: str) -> Result:
    where = ("-f", "feeds.yaml", "--policy", "policy", "--state-dir", "state", "--node", NODE)
    return enforcer("feed", "sync", *where, *words)


def test_no_list_is_fetched_while_it_is_unknown_what_is_protected(folder: Path) -> None:
    """A typing error in a list of partners must not let the next feed deny them."""
    partners = document(
        "GlobalNetworkSet", "{nets: [203.0.113.0/33]}", '{name: p, labels: {enforcer.io/protected: "true"}}'
    )
    (folder / "policy" / "partners.yaml").write_text(partners)
    done = sync()
    assert done.exit_code == 1
    assert "unknown what GlobalNetworkSet p protects" in done.stderr
    assert not (folder / "policy" / "feeds").exists()
    assert sync("--despite-faults").exit_code == 0
    assert (
        enforcer("feed", "remove", "drop", "--policy", "policy", "--state-dir", "state", "--node", NODE).exit_code == 0
    )


def test_a_feed_is_synced_and_what_is_ours_is_left_out(folder: Path) -> None:
    done = sync("--metrics-textfile", str(folder / "feeds.prom"))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "drop: ok; 9 CIDRs in 1 set, 1 created",
        "  not denied: 198.51.100.9/32, an address of HostEndpoint h (expectedIPs); the list has 198.51.100.0/24",
    ]
    (found,) = load([folder / "policy"]).global_network_sets
    assert (found.name, found.labels["list"], len(found.nets)) == ("feed-drop-v4", "deny", 9)
    assert 'enforcer_feed_cidrs{feed="drop"} 9\n' in (folder / "feeds.prom").read_text()
    again = sync()
    assert again.stdout.splitlines()[0] == "drop: ok; 9 CIDRs in 1 set, none changed"


def test_a_dry_run_says_the_same_and_writes_nothing(folder: Path) -> None:
    done = sync("--dry-run")
    assert done.exit_code == 0
    assert "1 created" in done.stdout
    assert not (folder / "policy" / "feeds").exists()
    assert not (folder / "state").exists()


def test_a_failure_is_exit_code_1_and_keeps_the_sets(folder: Path) -> None:
    sync()
    (folder / "list").write_text("")
    done = sync("-o", "json")
    assert done.exit_code == 1
    (found,) = json.loads(done.stdout)["feeds"]
    assert (found["status"], found["unchanged"]) == ("failed", 1)
    assert "the list is empty" in found["problem"]
    shown = enforcer("feed", "list", "-f", "feeds.yaml", "--state-dir", "state")
    assert shown.exit_code == 0
    assert "failed" in shown.stdout
    assert "the list is empty" in shown.stdout


def test_what_is_held_is_accepted(folder: Path) -> None:
    sync()
    (folder / "list").write_text("198.51.100.0/24\n" + "".join(f"203.0.113.{at}\n" for at in range(1, 99, 2)))
    held = sync()
    assert held.exit_code == 1
    assert "drop: held; 9 CIDRs in 1 set, none changed; " in held.stdout
    assert "--accept drop" in held.stdout
    taken = sync("--accept", "drop")
    assert taken.exit_code == 0, taken.output
    assert "1 changed" in taken.stdout
    again = sync("--accept", "drop")
    assert (again.exit_code, again.stderr) == (2, "error: nothing of feed drop is held\n")


def test_one_feed_does_not_keep_another_from_being_synced(folder: Path) -> None:
    (folder / "feeds.yaml").write_text(
        "feeds:\n"
        "- {name: gone, source: nowhere, labels: {list: deny}}\n"
        "- {name: drop, source: list, labels: {list: deny}}\n"
    )
    done = sync()
    assert done.exit_code == 1
    assert "gone: failed; " in done.stdout
    assert "nowhere: cannot be read: No such file or directory" in done.stdout
    assert "drop: ok; " in done.stdout
    assert sync("--only", "drop").exit_code == 0


def test_a_feed_that_is_not_listed_any_more_is_named(folder: Path) -> None:
    sync()
    (folder / "feeds.yaml").write_text("feeds: [{name: new, source: list, labels: {list: deny}}]\n")
    assert "feed drop is not in feeds.yaml any more, and its sets stay" in sync().stderr
    shown = enforcer("feed", "list", "-f", "feeds.yaml", "--state-dir", "state", "-o", "json")
    assert json.loads(shown.stdout)["gone"] == ["drop"]


def test_a_piped_list_is_not_awaited_where_nothing_is_piped(folder: Path) -> None:
    (folder / "feeds.yaml").write_text("feeds: [{name: drop, source: '-', labels: {list: deny}}]\n")
    command = [sys.executable, "-m", "enforcer.cli", "feed", "sync", "-f", "feeds.yaml", "--policy", "policy"]
    more = ["--state-dir", "state", "--node", NODE]
    first = subprocess.run([*command, *more], input=b"203.0.113.7\n", capture_output=True, check=False)
    assert (first.returncode, first.stdout) == (0, b"drop: ok; 1 CIDR in 1 set, 1 created\n")
    later = subprocess.run([*command, *more], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (later.returncode, later.stdout) == (0, b"drop: ok; 1 CIDR in 1 set, none changed\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "other"], "feeds.yaml has no feed 'other'; it has: drop"),
        (["--metrics-textfile", "feeds.txt"], "node_exporter reads files that end in .prom"),
        (["--datastore", "etcd"], "--policy is for --datastore files"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(folder: Path, words: list[str], said: str) -> None:
    done = sync(*words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_wrong_feeds_yaml_is_exit_code_2(folder: Path) -> None:
    (folder / "feeds.yaml").write_text("feeds: [{name: drop, source: list}]\n")
    done = sync()
    assert done.exit_code == 2
    assert done.stderr == "error: feeds.yaml:1:9: feeds[0].labels: this field is required and absent\n"


def test_a_datastore_that_cannot_be_written_is_exit_code_3(folder: Path) -> None:
    (folder / "policy" / "feeds").write_text("a file where the sets should be\n")
    done = sync()
    assert done.exit_code == 3
    assert "policy/feeds" in done.stdout


def test_a_removed_feed_denies_nothing_any_more(folder: Path) -> None:
    sync()
    words = ("feed", "remove", "drop", "--policy", "policy", "--state-dir", "state", "--node", NODE)
    assert enforcer(*words, "--dry-run").stdout == "GlobalNetworkSet feed-drop-v4 would be deleted\n"
    assert enforcer(*words).stdout == "GlobalNetworkSet feed-drop-v4 deleted\n"
    assert not load([folder / "policy"]).global_network_sets
    assert enforcer(*words).exit_code == 1


def export(*words: str) -> Result:
    return enforcer("export", "--policy", "policy", "--node", NODE, "--emergency-dir", "acts", *words)


def test_what_is_denied_is_exported(folder: Path) -> None:
    assert export("--format", "json").exit_code == 1
    sync()
    done = export("--format", "json")
    assert done.exit_code == 0, done.stderr
    rules = json.loads(done.stdout)["rules"]
    assert len(rules) == 9
    assert rules[-1] == {
        "source": "203.0.113.7/32", "destination": None, "entry": "gnp/dos ingress[0]",
        "list": "GlobalNetworkSet feed-drop-v4", "dropped": None, "until": None,
    }  # fmt: skip
    assert "upstream has no failsafe ports" in done.stderr


def test_ranking_needs_the_counters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "_effective_capabilities", lambda: 0)
    for words in (["--format", "json", "--top", "5"], ["--format", "exabgp"]):
        done = export(*words)
        assert done.exit_code == 3
        assert "ranking by drop counters needs CAP_NET_ADMIN" in done.stderr
    done = export("--format", "nft", "--follow")
    assert (done.exit_code, done.stderr) == (2, "error: --follow is for --format exabgp\n")

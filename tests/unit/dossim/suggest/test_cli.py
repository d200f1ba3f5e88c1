"""``dossim suggest`` as a command: what it needs to be told, what it writes, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dossim.cli import main
from dossim.engine.library import ANOTHER, library
from enforcer.policy.load import load
from tests.unit.dossim.suggest.generated import TCP, UDP, Packet, capture

ROOT = Path(__file__).parents[4]
BOTS: list[Packet] = [(f"203.0.113.{host}", TCP, (50_000 + host, 80)) for host in range(64, 128)]
CUSTOMERS: list[Packet] = [(f"198.51.100.{host}", TCP, (50_000 + host, 443)) for host in range(20)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    capture(BOTS).write("attack.pcap")
    capture(CUSTOMERS).write("before.pcap")
    capture([*BOTS, *CUSTOMERS]).write("both.pcap")
    capture([]).write("none.pcap")
    return tmp_path


def suggest(*words: str) -> Result:
    return CliRunner().invoke(main, ["suggest", *words])


def test_a_list_is_written_that_our_own_validator_accepts(folder: Path) -> None:
    result = suggest("attack.pcap", "--baseline", "before.pcap", "--only-sources", "-o", "gns.yaml")
    assert result.exit_code == 0, result.output
    found = load([folder / "gns.yaml"])
    assert [str(net) for net in found.global_network_sets[0].nets] == ["203.0.113.64/26"]
    assert "1 network blocks 64 of 64 packets (100 %) of the attack" in result.stdout
    assert "predicted, the attack: 64 delivered; with the list: 64 driver" in result.stdout
    assert "predicted, the baseline: 20 delivered; with the list: 20 delivered" in result.stdout


def test_the_rest_of_the_capture_is_the_baseline_of_a_filter() -> None:
    result = suggest("both.pcap", "--attack-filter", "dst port 80", "--json", "-")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["schema"], data["blocked"], data["collateral"]) == ("dossim/suggest/v1", 64, 0)
    assert (data["attack"]["packets"], data["baseline"]["packets"]) == (64, 20)
    assert data["rules"] == [{"signature": None, "anywhere": [], "nets": ["203.0.113.64/26"]}]


def test_the_page_has_the_curve(folder: Path) -> None:
    result = suggest("attack.pcap", "--all-is-attack", "--budget", "20", "--html", "list.html")
    assert result.exit_code == 0, result.output
    page = (folder / "list.html").read_text()
    assert '<path class="curve" d="M' in page
    assert "no baseline" not in page
    assert "legitimate traffic is assumed to come evenly from all addresses" in page


def test_beside_the_deny_list_of_a_policy(folder: Path) -> None:
    policy = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
    capture([(f"192.0.2.{host}", TCP, (999, 80)) for host in range(192, 200)]).write("other.pcap")
    result = suggest("other.pcap", "--baseline", "before.pcap", "--only-sources", "-p", policy, "-o", "-")
    assert result.exit_code == 0, result.output
    (folder / "found.yaml").write_text(result.stdout)
    found = load([folder / "found.yaml"])
    assert found.global_network_sets[0].labels == {"dos-deny-list": "true"}
    assert not found.policies


@pytest.mark.parametrize(
    ("more", "is_beside"),
    [
        ("", True),
        ("      ipVersion: 4\n", False),
        ("      protocol: UDP\n", False),
        ("      protocol: TCP\n      destination: {ports: [81]}\n", False),
    ],
    ids=["all", "one family", "one protocol", "one port"],
)
def test_a_deny_list_of_which_some_packets_are_denied_is_no_place(folder: Path, more: str, is_beside: bool) -> None:
    """What is counted as blocked is denied: all packets of the networks."""
    text = (ROOT / "scenarios" / "policies" / "how-to.yaml").read_text()
    assert "- action: Deny\n" in text
    (folder / "policy.yaml").write_text(text.replace("- action: Deny\n", f"- action: Deny\n{more}"))
    capture([(f"192.0.2.{host}", TCP, (999, 80)) for host in range(192, 200)]).write("other.pcap")
    words = ("other.pcap", "--baseline", "before.pcap", "--only-sources", "-p", "policy.yaml")
    result = suggest(*words, "-o", "found.yaml", "--json", "list.json")
    assert result.exit_code == 0, result.output
    found = load([folder / "found.yaml"])
    assert (found.global_network_sets[0].labels == {"dos-deny-list": "true"}) == is_beside
    assert bool(found.policies) != is_beside
    data = json.loads((folder / "list.json").read_text())
    assert (data["blocked"], data["warnings"]) == (8, [])
    assert data["predicted"]["the attack"]["after"] == {"driver": 8}


def test_a_list_that_the_policy_lets_through_says_so(folder: Path) -> None:
    """A rule that comes first, for a port that the attack has as well."""
    text = (ROOT / "scenarios" / "policies" / "how-to.yaml").read_text()
    first = "- action: Allow\n      protocol: TCP\n      destination: {ports: [80]}\n    - action: Deny\n"
    (folder / "policy.yaml").write_text(text.replace("- action: Deny\n", first))
    capture([(f"192.0.2.{host}", TCP, (999, port)) for host in range(192, 200) for port in (80, 81)]).write("x.pcap")
    result = suggest("x.pcap", "--baseline", "before.pcap", "--only-sources", "-p", "policy.yaml")
    assert result.exit_code == 0, result.output
    assert "with the list applied 8 packets of the 16 get through: a rule of the policy that comes" in result.stdout


def test_a_policy_without_endpoint_is_said_to_have_none(folder: Path) -> None:
    policy = str(ROOT / "scenarios" / "policies" / "allow-before-deny.yaml")
    result = suggest("attack.pcap", "--baseline", "before.pcap", "-p", policy)
    assert "the policy has no HostEndpoint, and denies nothing without one" in result.stdout
    assert "HostEndpoint" not in suggest("attack.pcap", "--baseline", "before.pcap").stdout


def test_what_the_policy_denies_already_needs_no_other_list(folder: Path) -> None:
    """203.0.113.0/24 and 192.0.2.0/25 are in the deny list of the how-to."""
    policy = ("-p", str(ROOT / "scenarios" / "policies" / "how-to.yaml"))
    capture([(f"192.0.2.{host}", TCP, (999, 80)) for host in range(100, 140)]).write("half.pcap")
    result = suggest("half.pcap", "--baseline", "before.pcap", "--only-sources", *policy, "--json", "-")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert "28 packets of the attack that the policy denies already: left out" in data["about"]
    assert data["rules"] == [{"signature": None, "anywhere": [], "nets": ["192.0.2.128/28"]}]
    result = suggest("attack.pcap", "--baseline", "before.pcap", *policy, "-o", "gns.yaml")
    assert result.exit_code == 0, result.output
    assert result.stdout == "attack.pcap: the policy denies all 64 packets of the attack already\n"
    assert not (folder / "gns.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param((), "what is the attack? Give --baseline CAPTURE", id="nothing says what the attack is"),
        pytest.param(
            ("--all-is-attack", "--baseline", "before.pcap"), "--all-is-attack: with --baseline", id="two answers"
        ),
        pytest.param(("--attack-filter", "port port"), "--attack-filter 'port port': ", id="no filter of tcpdump"),
        pytest.param(("--attack-filter", "udp\udcff"), "--attack-filter 'udp", id="no filter and no text"),
        pytest.param(("--baseline", "none.pcap"), "none.pcap: has no received IP packets", id="an empty baseline"),
        pytest.param(("--attack-filter", "udp"), "attack.pcap: no packet of it is the attack", id="no packet matches"),
        pytest.param(
            ("--attack-filter", "tcp"), "besides the attack it has no received IP packets", id="all packets match"
        ),
        pytest.param(("--baseline", "before.pcap", "--attack-filter", "udp"), "no packet of it", id="nor beside it"),
        pytest.param(("--all-is-attack", "--protect", "203.0.113"), "--protect: '203.0.113'", id="no network"),
        pytest.param(("--all-is-attack", "--max-collateral", "0.1"), "expected a share of 0% to 100%", id="no share"),
        pytest.param(("--all-is-attack", "--name", "A_b"), "expected 1 to 32 lower case letters", id="no name"),
        pytest.param(("--all-is-attack", "--budget", "0"), "0 is not in the range", id="no budget"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(folder: Path, words: tuple[str, ...], message: str) -> None:
    result = suggest("attack.pcap", *words, "-o", "gns.yaml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (folder / "gns.yaml").exists()


def test_where_no_list_helps_it_says_so_and_writes_none(folder: Path) -> None:
    """The attackers are the customers."""
    capture([(source, UDP, (5, 6)) for source, _, _ in CUSTOMERS]).write("same.pcap")
    words = ("same.pcap", "--baseline", "before.pcap", "--only-sources", "-o", "gns.yaml")
    result = suggest(*words)
    assert result.exit_code == 1
    assert "no list helps" in result.stdout
    assert not (folder / "gns.yaml").exists()


def test_what_only_failsafes_match_no_list_helps_against() -> None:
    capture([(source, UDP, (53, 9)) for source, _, _ in BOTS]).write("answers.pcap")
    result = suggest("answers.pcap", "--baseline", "before.pcap")
    assert result.exit_code == 1
    assert "64 packets of the attack to or from failsafe ports: no untracked policy denies them" in result.stdout
    assert "no list helps" in result.stdout


def test_without_the_engine_it_says_how_to_build_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ANOTHER, str(folder / "none.so"))
    library.cache_clear()
    result = suggest("attack.pcap", "--baseline", "before.pcap")
    library.cache_clear()
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: {folder / 'none.so'}: the engine is not there; build it with")
    assert len(result.stderr.splitlines()) == 1

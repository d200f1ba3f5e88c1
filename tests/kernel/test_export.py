"""``enforcer export`` on a host that enforces: ranked by real drops, and read by the tools that it is for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from enforcer.enforcement.apply import Enforcer
from enforcer.policy.load import load
from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import DEADLINE_S, DENIED, VICTIM, documents, policy, run, traffic

pytestmark = pytest.mark.needs_root

FEW, MANY = "{action: Deny, source: {selector: deny == 'few'}}", "{action: Deny, source: {selector: deny == 'many'}}"
LAST = "192.0.2.9"


def listed(name: str, *cidrs: str) -> str:
    nets = ", ".join(f"'{cidr}'" for cidr in cidrs)
    return (
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, "
        f"metadata: {{name: {name}, labels: {{deny: {name}}}}}, spec: {{nets: [{nets}]}}}}"
    )


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """The entry of the larger list is the one that will drop."""
    path = tmp_path / "policy"
    path.mkdir()
    endpoint = (
        "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h, labels: {role: edge}}, "
        f"spec: {{node: {NODE}, interfaceName: eth0, expectedIPs: [{VICTIM}, '2001:db8::1']}}}}"
    )
    parts = (
        endpoint,
        listed("few", "198.51.100.7"),
        listed("many", "203.0.113.0/25", "2001:db8:1::/48"),
        policy(FEW, MANY),
    )
    (path / "all.yaml").write_text(documents(*parts))
    return path


def exported(host: NetnsPair, policies: Path, pin_root: Path, *words: str) -> str:
    where = ("--policy", str(policies), "--node", NODE, "--pin-root", str(pin_root))
    done = run(host, ["export", *words, *where, "--emergency-dir", str(policies.parent / "acts")])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lists_are_ranked_by_what_their_entries_dropped(host: NetnsPair, pin_root: Path, policies: Path) -> None:
    with host.host():
        Enforcer(NODE, pin_root=pin_root).apply(load([policies]))
    with traffic(host) as wire:
        assert wire.arrivals(*[DENIED] * 3, LAST) == [LAST]
    found = json.loads(exported(host, policies, pin_root, "--format", "json", "--top", "2"))["rules"]
    assert [rule["list"] for rule in found] == ["GlobalNetworkSet many"] * 2
    assert found[0]["dropped"]["packets"] == 3


def test_nft_and_ipset_read_it_and_a_second_time_replaces(host: NetnsPair, pin_root: Path, policies: Path) -> None:
    for kind, load_it, show in (
        ("nft", ["nft", "-f", "-"], ["nft", "list", "table", "inet", "enforcer_export"]),
        ("ipset", ["ipset", "restore", "-exist"], ["ipset", "list"]),
    ):
        text = exported(host, policies, pin_root, "--format", kind)
        inside = ["ip", "netns", "exec", host.peer_name]
        for words, each in ((load_it, text), (load_it, text.replace("203.0.113.0/25", "203.0.113.128/25"))):
            done = subprocess.run([*inside, *words], input=each, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        shown = subprocess.run([*inside, *show], capture_output=True, text=True, check=True).stdout
        assert "203.0.113.128/25" in shown
        assert "203.0.113.0/25" not in shown
        assert "2001:db8:1::/48" in shown


def test_exabgp_is_told_what_is_new_and_what_has_ended(host: NetnsPair, pin_root: Path, policies: Path) -> None:
    words = ("export", "--format", "exabgp", "--follow", "--every", "5", "--hold", "0", "--policy", str(policies))
    more = ("--node", NODE, "--pin-root", str(pin_root), "--emergency-dir", str(policies.parent / "acts"))
    inside = ["nsenter", f"--net=/run/netns/{host.host_name}", sys.executable, "-m", "enforcer.cli"]
    read, write = os.pipe()  # an open stdin: ExaBGP, which answers
    with (
        os.fdopen(write, "w") as exabgp,
        subprocess.Popen([*inside, *words, *more], stdin=read, stdout=subprocess.PIPE, text=True) as process,
    ):
        os.close(read)
        assert process.stdout
        killer = threading.Timer(DEADLINE_S, process.kill)
        killer.start()
        try:
            first = [process.stdout.readline() for _ in range(3)]
            exabgp.write("done\n" * 3)
            exabgp.flush()
            assert first[0] == (
                f"announce flow route {{ match {{ source 198.51.100.7/32; destination {VICTIM}/32; }} "
                "then { discard; } }\n"
            )
            text = (policies / "all.yaml").read_text()
            (policies / "new").write_text(text.replace("198.51.100.7", "198.51.100.8"))
            (policies / "new").rename(policies / "all.yaml")
            assert process.stdout.readline() == first[0].replace("announce", "withdraw")
            assert process.stdout.readline() == first[0].replace("100.7", "100.8")
            process.send_signal(signal.SIGTERM)
            assert {line.split()[0] for line in process.stdout} == {"withdraw"}
            assert process.wait() == 0
        finally:
            killer.cancel()
            process.kill()


@pytest.mark.parametrize("more", [[], ["--follow"]], ids=["once", "followed"])
def test_a_node_without_an_endpoint_withdraws_nothing_upstream(
    host: NetnsPair, pin_root: Path, policies: Path, more: list[str]
) -> None:
    where = ["--policy", str(policies), "--node", "onyx", "--emergency-dir", str(policies.parent / "acts")]
    done = run(host, ["export", "--format", "exabgp", *more, *where, "--pin-root", str(pin_root)])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--node onyx: this node has no HostEndpoint; nodes with HostEndpoints: {NODE}" in done.stderr

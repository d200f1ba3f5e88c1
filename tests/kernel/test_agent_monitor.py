"""A running agent seen from outside: metrics of real drops, health while its files are away, and its status."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from enforcer.enforcement.apply import Enforcer
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    APPLIED,
    DEADLINE_S,
    DENIED,
    NODE,
    VICTIM,
    agent,
    deny_list,
    documents,
    endpoint,
    felix,
    policy,
    run,
    traffic,
)

pytestmark = pytest.mark.needs_root

METRICS, HEALTH = f"{VICTIM}:9091", f"{VICTIM}:9099"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "policy"
    directory.mkdir()
    (directory / "dos.yaml").write_text(documents())
    return directory


def get(host: NetnsPair, where: str) -> tuple[int, str]:
    """Status and body; from the host's own namespace, whose loopback is up."""
    with host.host():
        try:
            with urllib.request.urlopen(f"http://{where}", timeout=DEADLINE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


def loopback(host: NetnsPair) -> None:
    with host.host(), IPRoute() as ip:
        ip.link("set", index=1, state="up")


def value(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    found = 0.0
    for line in re.findall(rf"^{name}(?:{{.*}})? .*$", text, re.MULTILINE):
        if all(f'{label}="{text}"' in line for label, text in labels.items()):
            found += float(line.rpartition(" ")[2])
    return found


def until(check: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline_s, "in vain"
        time.sleep(0.05)


def state_of(host: NetnsPair, pin_root: Path) -> dict[str, Any]:
    """What 'enforcer status' shows of the agent."""
    done = run(host, ["status", "--pin-root", str(pin_root), "-o", "json"])
    return dict(json.loads(done.stdout)["agent"]["state"])


def test_what_is_dropped_is_counted_by_policy_and_stage(host: NetnsPair, pin_root: Path, store: Path) -> None:
    loopback(host)
    textfile = store.parent / "enforcer.prom"
    words = ("--metrics-addr", METRICS, "--health-addr", HEALTH, "--metrics-textfile", str(textfile))
    with traffic(host) as wire, agent(host, pin_root, store, *words) as running:
        running.expect(APPLIED)
        until(lambda: get(host, f"{HEALTH}/readiness")[0] == 200)
        assert get(host, f"{HEALTH}/liveness")[0] == 200
        wire.arrivals(*[DENIED] * 7, ALLOWED)
        until(lambda: value(get(host, f"{METRICS}/metrics")[1], "enforcer_dropped_packets_total") == 7)
        _, text = get(host, f"{METRICS}/metrics")
        assert value(text, "enforcer_dropped_packets_total", policy="dos", interface="eth0", stage="driver") == 7
        with host.host():
            counted = sum(count.bytes for count in Enforcer(NODE, pin_root=pin_root).counters())
        assert value(text, "enforcer_dropped_bytes_total") == counted > 0
        assert value(text, "enforcer_interface_stage", interface="eth0", stage="driver") == 1
        assert value(text, "enforcer_interface_entries", stage="driver") == 2
        assert value(text, "enforcer_set_cidrs", set="bots") == 1
        assert value(text, "enforcer_table_ranges", family="ipv4") == 1
        assert value(text, "enforcer_info", node=NODE, datastore="files") == 1
        assert value(text, "enforcer_out_of_date_seconds") == 0
        (store / "dos.yaml").write_text(documents(endpoint(), deny_list("198.51.100.0/24", "192.0.2.0/24"), policy()))
        until(lambda: value(get(host, f"{METRICS}/metrics")[1], "enforcer_set_cidrs", set="bots") == 2)
        assert value(get(host, f"{METRICS}/metrics")[1], "enforcer_table_ranges", family="ipv4") == 2
        _, text = get(host, f"{METRICS}/metrics")
        assert value(text, "enforcer_propagation_seconds_count") >= 1
        assert value(text, "enforcer_dropped_packets_total") == 7, "a change of policy takes nothing away"
        assert textfile.exists()
        assert running.end(signal.SIGTERM) == 0
    assert not textfile.exists()


def test_it_stays_ready_while_its_files_are_away_and_says_what_it_holds(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    """Servers come with a FelixConfiguration; a faulty object and a missing directory are told by object."""
    loopback(host)
    served = felix(
        prometheusMetricsEnabled="true", prometheusMetricsHost="127.0.0.1", healthEnabled="true", healthHost="127.0.0.1"
    )
    (store / "felix.yaml").write_text(served)
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        until(lambda: get(host, "127.0.0.1:9099/readiness")[0] == 200)
        state = state_of(host, pin_root)
        assert (state["datastore"]["faults"], state["datastore"]["kept"], state["out_of_date_s"]) == ([], [], 0)
        (store / "dos.yaml").write_text(documents(endpoint(), deny_list("198.51.100.0/33"), policy()))
        until(lambda: value(get(host, "127.0.0.1:9091/metrics")[1], "enforcer_policy_faults", outcome="kept") == 1)
        done = run(host, ["status", "--pin-root", str(pin_root)])
        assert f"{store}/dos.yaml:3:" in done.stdout
        assert "at an older version: GlobalNetworkSet bots" in done.stdout
        shutil.move(store, store.parent / "elsewhere")
        store.symlink_to("nowhere")  # as a mount that is away: unknown what there is
        until(lambda: "files: not connected" in get(host, "127.0.0.1:9099/readiness")[1])
        code, body = get(host, "127.0.0.1:9099/readiness")
        assert code == 200
        assert "the enforced policy stays" in body
        text = get(host, "127.0.0.1:9091/metrics")[1]
        assert value(text, "enforcer_datastore_connected") == 0
        assert value(text, "enforcer_datastore_errors_total", reason="unreadable") >= 1
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        running.process.send_signal(signal.SIGSTOP)  # an agent that hangs: the kernel answers all the same
        done = run(host, ["status", "--pin-root", str(pin_root)])
        running.process.send_signal(signal.SIGCONT)
        assert "it does not answer, so only the kernel is shown" in done.stdout
        assert "eth0: enforced at driver" in done.stdout
        running.end(signal.SIGTERM)
    done = run(host, ["status", "--pin-root", str(pin_root)])
    assert "no agent runs" in done.stdout
    assert "eth0: enforced at driver" in done.stdout


def test_a_port_that_is_taken_stops_nothing(host: NetnsPair, pin_root: Path, store: Path) -> None:
    loopback(host)
    with host.host():
        other = socket.create_server(("127.0.0.1", 9091))
    with other, traffic(host) as wire, agent(host, pin_root, store, "--metrics-addr", "127.0.0.1:9091") as running:
        assert "the port is taken" in running.expect("cannot serve metrics")
        running.expect(APPLIED)
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--metrics-addr", "9091"], "expected HOST:PORT"),
        (["--metrics-addr", ""], "empty value"),
        (["--metrics-textfile", "/tmp/enforcer.txt"], "files that end in .prom"),
        (["--metrics-textfile", "/nowhere/enforcer.prom"], "/nowhere: not a directory"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error(host: NetnsPair, store: Path, words: list[str], problem: str) -> None:
    done = run(host, ["run", "-f", str(store), *words])
    assert done.returncode == 2
    assert problem in done.stderr

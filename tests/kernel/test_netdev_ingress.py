"""Netdev ingress on the running kernel: where packets end, and the fate they have with raw alone."""

from __future__ import annotations

import json
import random
from collections import Counter
from ipaddress import ip_interface
from itertools import groupby
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from dossim.cli import main
from dossim.drill.results import DrillResult
from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.vocabulary import Stage
from enforcer.policy.load import load
from enforcer.policy.resources import Resources
from tests.kernel.drill_support import assert_as_predicted, ends
from tests.kernel.test_random_policies import ADJACENT, drillable, without_fragments
from tests.kernel.test_raw_fates import ODD, RULES, policy
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frame_strategies import random_frames
from tests.support.frames import captures
from tests.support.odd_frames import frames
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.unmutated import UNMUTATED
from tests.support.witnesses import breaches, table_of
from tests.unit.dossim import xdp_decisions
from tests.unit.dossim.test_netdev_decisions import NETDEV_ROWS

pytestmark = pytest.mark.needs_root

DUAL_STACK = Path(__file__).parents[2] / "scenarios" / "policies" / "dual-stack.yaml"
HOST = Host(
    node="jasper",
    addresses=(ip_interface("10.10.10.10/24"), ip_interface("fd00::10/64")),
    listen=(Listener(6, 80), Listener(17, 9)),
)
BOTH = (RawChoice.IPTABLES, RawChoice.NFTABLES)
BACKENDS = pytest.mark.parametrize("raw", BOTH, ids=str)
EXAMPLES = 14
AIMED = 100  # random frames per example, aimed at its table


def drilled(rules: Resources, packets: list[bytes], raw: RawChoice, *, host: Host = HOST) -> DrillResult:
    situation = Situation(rules, host, ModeChoice.RAW, raw, netdev=True)
    result = drill_capture(Capture.from_frames(packets), situation)
    assert_as_predicted(result)
    return result


def early(result: DrillResult) -> int:
    """How many packets were seen to end at netdev ingress."""
    found = result.verification.stages.get(Stage.NETDEV_INGRESS)
    return found.observed if found else 0


@BACKENDS
def test_the_how_to_and_every_odd_packet(raw: RawChoice) -> None:
    """Fragments, malformed headers, VLAN tags, both families."""
    assert early(drilled(load([DUAL_STACK]), frames(20261123, 2500), raw)) > 100


@BACKENDS
@pytest.mark.parametrize("name", RULES)
def test_packets_that_cannot_be_read(name: str, raw: RawChoice) -> None:
    assert early(drilled(policy(RULES[name]), ODD, raw)) > 0


def test_all_entries_at_once() -> None:
    assert early(drilled(policy(*RULES.values()), frames(20261124, 3000), RawChoice.NFTABLES)) > 100


@pytest.mark.long
@pytest.mark.slow
def test_every_row_of_the_model() -> None:
    """Each row's policy with the frames of all the rows that have it."""
    rows = sorted((row for row in NETDEV_ROWS if without_fragments([row.frame])), key=lambda row: str(row.policy))
    seen = 0
    for _, group in groupby(rows, key=lambda row: str(row.policy)):
        found = list(group)
        situation = Situation(found[0].policy, xdp_decisions.HOST, ModeChoice.RAW, RawChoice.NFTABLES, netdev=True)
        result = drill_capture(Capture.from_frames([row.frame for row in found]), situation)
        wrong = [
            row.sentence
            for row, end in zip(found, ends(result), strict=True)
            if (end.stage is Stage.NETDEV_INGRESS) is (row.dropped_by is None)
        ]
        assert not wrong
        seen += early(result)
    assert seen > 50


@pytest.mark.long
@pytest.mark.slow
@BACKENDS
def test_random_policies_are_predicted_and_nothing_is_dropped_that_raw_would_not(raw: RawChoice) -> None:
    seen: Counter[str] = Counter()
    tables: set[str] = set()

    # Shrinking a drill takes too long: a failing example is reported as it is.
    @settings(
        backend=UNMUTATED,
        max_examples=examples(EXAMPLES, nightly=1000),
        deadline=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(resources(), hosts(), captures(), st.integers(0, 9))
    def drill(rules: Resources, host: Host, others: list[bytes], seed: int) -> None:
        table = table_of(rules, host)
        assume(table.ingress and str(table.ingress) not in tables)
        tables.add(str(table.ingress))
        reached = drillable([*reach(table, host, adjacent=ADJACENT).frames, *others], host)
        odder = without_fragments(random_frames(table, random.Random(seed), AIMED))
        with kept("found-netdev-ingress", rules, host, [*reached, *odder]):
            drilled(rules, reached, raw, host=host)
            # For other packets only this stage is checked: which packets it drops, and whether raw would.
            with_chains, alone = (
                drill_capture(
                    Capture.from_frames([*reached, *odder]), Situation(rules, host, ModeChoice.RAW, raw, netdev=netdev)
                )
                for netdev in (True, False)
            )
            assert [end.stage is Stage.NETDEV_INGRESS for end in ends(with_chains)] == [
                with_chains.prediction.disposition(number).stage is Stage.NETDEV_INGRESS
                for number in range(len(with_chains.prediction))
            ]
            assert not breaches(ends(with_chains), ends(alone))
        seen.update(policies=1, held=with_chains.plan.netdev, early=early(with_chains))

    drill()
    assert seen["policies"] >= EXAMPLES
    assert seen["held"] > EXAMPLES / 5, seen
    assert seen["early"] > 5 * EXAMPLES, seen  # 20 per policy over 200 policies; 7 to 36 in single runs of 20


def test_the_command(tmp_path: Path) -> None:
    """``dossim drill --netdev-ingress``, in mode auto with and without XDP."""
    capture = tmp_path / "flood.pcap"
    wrpcap(str(capture), [Ether(xdp_decisions.udp()), Ether(xdp_decisions.udp(source="192.0.2.1"))] * 50)
    for felix, stage in (({}, "driver"), ({"xdpEnabled": False}, "netdev-ingress")):
        rules = tmp_path / "policy.yaml"
        settings = {
            "apiVersion": "projectcalico.org/v3",
            "kind": "FelixConfiguration",
            "metadata": {"name": "default"},
            "spec": felix,
        }
        rules.write_text(f"{DUAL_STACK.read_text()}\n---\n{json.dumps(settings)}\n")
        words = ["drill", str(capture), "-p", str(rules), "--netdev-ingress", "-o", "json"]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        data = json.loads(result.stdout)
        assert (data["matched"], data["mismatched"], data["unobserved"]) == (100, 0, 0)
        assert data["stages"][stage]["observed"] == 50

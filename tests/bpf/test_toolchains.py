"""One source, two toolchains: the program that bcc compiles here decides and counts as the prebuilt object does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.host import Host
from enforcer.kernel.bpf.toolchain import require
from enforcer.model.errors import HostError
from enforcer.model.vocabulary import Toolchain
from enforcer.planning.plan import InterfacePlan
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.resources import Resources
from tests.bpf.xdp_frames import (
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    IPV4,
    IPV6,
    TCP,
    UDP,
    UNLISTED4,
    VLAN,
    chain,
    ether,
    fragment6,
    ipv4,
    ipv6,
    tcp,
    udp,
)
from tests.bpf.xdp_program import LISTS, plan_for, program_for, table_of
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.unmutated import UNMUTATED
from tests.support.witnesses import table_of as compiled

pytestmark = pytest.mark.needs_root

FRAMES = [
    ether(IPV4, ipv4()),
    ether(IPV4, ipv4(source=UNLISTED4)),
    ether(IPV4, ipv4(source="198.51.100.1")),
    ether(IPV4, ipv4(tcp(dport=22), protocol=TCP)),
    ether(IPV4, ipv4(tcp(), protocol=TCP)),
    ether(IPV4, ipv4(udp(sport=53), protocol=UDP), (VLAN, 5)),
    ether(IPV4, ipv4(udp(sport=53), protocol=UDP), (VLAN, 0)),
    ether(IPV4, ipv4(udp(), protocol=UDP, offset=1)),
    ether(IPV4, ipv4(options=bytes(8), total=20)),
    ether(IPV6, ipv6()),
    ether(IPV6, ipv6(fragment6(TCP, offset=1), next_header=FRAGMENT)),
    chain(HOP_BY_HOP, *[DESTINATION] * 7, payload=tcp(dport=22)),
    chain(HOP_BY_HOP, *[DESTINATION] * 7, payload=tcp(dport=80)),
    chain(*[DESTINATION] * 9, payload=tcp(dport=80)),
]


@pytest.fixture(scope="module", autouse=True)
def _bcc() -> None:
    try:
        require(Toolchain.BCC)
    except HostError as error:
        pytest.skip(str(error))


def answers(
    plan: InterfacePlan, frames: Sequence[bytes], toolchain: Toolchain
) -> tuple[list[int], list[tuple[int, int]]]:
    """Verdicts, and packets and bytes of each entry."""
    with program_for(plan, toolchain=toolchain) as program:
        return [program.run(frame) for frame in frames], program.counts()


def test_both_toolchains_decide_and_count_alike() -> None:
    by_libbpf, by_bcc = (answers(table_of(*LISTS), FRAMES, item) for item in Toolchain)
    assert by_bcc == by_libbpf
    assert all(packets for packets, _ in by_bcc[1])


@pytest.mark.slow
@settings(backend=UNMUTATED, max_examples=examples(8, nightly=100), suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), captures(), st.integers(0, 9))
def test_both_toolchains_decide_and_count_alike_whatever_the_policy(
    policy: Resources, host: Host, others: list[bytes], seed: int
) -> None:
    """Each new combination of settings is compiled anew, so few policies are drawn."""
    table = compiled(policy, host)
    run = XdpRun(table).held()
    if not run:
        return
    frames = [frame for frame in (*reach(table, host, seed).frames, *others) if len(frame) >= 14]
    plan = plan_for(replace(table, ingress=table.ingress[:run]))
    with kept("found-toolchains", policy, host, frames):
        by_libbpf, by_bcc = (answers(plan, frames, item) for item in Toolchain)
        assert by_bcc == by_libbpf

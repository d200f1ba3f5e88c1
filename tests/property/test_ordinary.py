"""Ordinary packets end as they would stage by stage: the engine with and without what it remembers of their classes.

Headers of generated frames are changed at random, in columns, so that many more frames are compared than ``explain``
could judge.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_interface

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dossim.engine.layout import FLOW
from dossim.engine.predictor import Predictor
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict.prediction import FATES, NO_STAGE, STAGES, Draft
from dossim.predict.world import predictor_of
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import IpSet, RuleTable
from tests.support.counterexample import kept
from tests.support.entries import SideMatch, entry_of
from tests.support.examples import PROFILE, examples
from tests.support.frame_strategies import SHORTEST, random_frames
from tests.support.mutated import WIDTH, mutated, seal
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.witnesses import plan_for, table_of

CHOICES = (
    *[(choice, False) for choice in ModeChoice if choice is not ModeChoice.AUTO],
    (ModeChoice.NATIVE, False),
    (ModeChoice.RAW, True),
)
AIMED, MUTATED = 300, 20_000
LEAST_FRAMES = examples(1_000_000, nightly=100_000_000)

Bytes = npt.NDArray[np.uint8]


@pytest.mark.long
def test_they_end_as_stage_by_stage() -> None:
    ends: Counter[str] = Counter()

    @settings(
        max_examples=examples(100, nightly=10_000), phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(resources(), hosts(), st.sampled_from(CHOICES), st.sampled_from(RawChoice), st.integers(0, 1 << 32))
    def agree(policy: Resources, host: Host, choice: tuple[ModeChoice, bool], raw: RawChoice, seed: int) -> None:
        plan = plan_for(policy, host, choice[0], raw, netdev=choice[1])
        table = table_of(policy, host)
        frames = [
            *random_frames(table, random.Random(seed), AIMED),
            *reach(table, host, seed % 10, adjacent=None, candidates_each=6).frames,
        ]
        capture = mutated([frame for frame in frames if len(frame) >= SHORTEST], seed, MUTATED)
        for records_flows in (False, True):
            draft, odd = same(predictor_of(plan, host), capture, policy, host, records_flows=records_flows)
            decided = odd == 0
            codes = draft.fate[decided].astype(np.int64) << 8 | draft.stage[decided]
            for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
                stage = int(code) & 0xFF
                ends[f"{FATES[int(code) >> 8]} {'' if stage == NO_STAGE else STAGES[stage]}"] += int(count)

    agree()
    assert sum(ends.values()) >= LEAST_FRAMES
    if PROFILE == "quick":
        return
    expected = {f"dropped {stage}" for stage in ("driver", "generic", "netdev-ingress", "ip-input", "raw", "route")}
    expected |= {"dropped nic-offload", "dropped socket", "delivered ", "forwarded "}
    assert not [end for end in sorted(expected) if ends[end] < LEAST_FRAMES // 10_000], dict(ends)


def same(
    engine: Predictor, capture: Capture, policy: Resources, host: Host, *, records_flows: bool
) -> tuple[Draft, Bytes]:
    """The draft and what is left open, found both ways."""
    assert engine.struct.classes, "there are not too many"
    quick, slow = Draft(capture), Draft(capture)
    odd, flows = engine.predict(capture, quick, records_flows=records_flows)
    engine.struct.classes, classes = None, engine.struct.classes
    odd_slow, flows_slow = engine.predict(capture, slow, records_flows=records_flows)
    engine.struct.classes = classes
    wrong = odd != odd_slow
    for name in ("fate", "stage", "entry", "reason", "untracked"):
        wrong |= (getattr(quick, name) != getattr(slow, name)) & (odd == 0)
    rows = np.flatnonzero(wrong)[:10].tolist()
    with kept("found-ordinary", policy, host, [capture.frame(row) for row in rows]):
        assert not [f"{row}: {ended(quick, row)}, not {ended(slow, row)}" for row in rows]
        assert np.array_equal(flows["number"], flows_slow["number"])
        unequal = [name for name in FLOW.names or () if not np.array_equal(flows[name], flows_slow[name])]
        assert not unequal
    return quick, odd


def ended(draft: Draft, row: int) -> tuple[int, ...]:
    """Codes of fate and stage, the index of the entry, the code of the reason, and whether it is untracked."""
    return tuple(int(getattr(draft, name)[row]) for name in ("fate", "stage", "entry", "reason", "untracked"))


# Addresses below one, of a number of bits, so many of them at random; and the length of their prefixes.
Part = tuple[int, int, int, int]
LISTS = {
    "IPv4 anywhere": (4, [(0, 32, 5_000, 32)]),
    "most of a /16": (4, [(0x0A0A << 16, 16, 60_000, 32)]),
    "two lists far from each other": (4, [(0x0A0A << 16, 12, 3_000, 32), (0, 32, 300, 24)]),
    "to both ends of the address space": (4, [(0, 16, 300, 28), (0xFFFFFF00, 8, 200, 32)]),
    "IPv6 far down in one prefix": (6, [(0x20010DB8 << 96, 32, 5_000, 128)]),
    "IPv6 networks of one provider, most of them in one part": (
        6,
        [(0x20010DB8 << 96, 96, 3_000, 56), (0x20010DB8_1234 << 80, 80, 3_000, 64), (0x20010DB8_FF << 88, 88, 300, 48)],
    ),
    "IPv6 networks to both ends of a provider's": (
        6,
        [(0x20010DB8 << 96, 72, 2_000, 64), (0x20010DB8_FFFFFF << 72, 72, 2_000, 64)],
    ),
    "IPv6 networks and addresses in one prefix": (
        6,
        [(0x20010DB8 << 96, 96, 3_000, 64), (0x20010DB8_5678 << 80, 24, 300, 128)],
    ),
    "IPv6 at any depth": (6, [(1 << 125, 125, 5_000, 64), (0x2A00 << 112, 112, 3_000, 128)]),
    "IPv6 to both ends of the address space": (6, [(0, 128, 3_000, 128), ((1 << 128) - 512, 9, 400, 128)]),
}
FRAMES = {
    4: "060000000001020000000000 0800 4500001c0000000040110000 00000000 0a0a0a0a 0400005000080000",
    6: "060000000001020000000000 86dd 6000000000081140"
    + 16 * "00"
    + "20010db8d24600000000000000000001 0400005000080000",
}


@pytest.mark.parametrize(("version", "parts"), LISTS.values(), ids=LISTS)
def test_addresses_of_long_lists_are_found(version: int, parts: Sequence[Part]) -> None:
    """The first and the last of each network, those beside them, and others."""
    rng, width = random.Random(1), {4: 32, 6: 128}[version]
    networks: dict[tuple[int, int], None] = {}
    for base, bits, most, prefix in parts:
        for _ in range(most):
            networks[(base | rng.getrandbits(bits)) >> (width - prefix) << (width - prefix), prefix] = None
    ends = [
        address + add for address, prefix in networks for add in (-1, 0, (1 << width - prefix) - 1, 1 << width - prefix)
    ]
    sources = [address for address in ends if 0 <= address < 1 << width] + [
        rng.getrandbits(width) for _ in range(2_000)
    ]
    frame, at, size = bytes.fromhex(FRAMES[version]), {4: 26, 6: 22}[version], width // 8
    capture = Capture.from_frames(frame[:at] + source.to_bytes(size) + frame[at + size :] for source in sources)
    listed = entry_of("listed", Action.DENY, source=SideMatch(ip_set="s:a"))
    kind = {4: IPv4Network, 6: IPv6Network}[version]
    nets = Nets.of(kind(network) for network in networks)
    table = RuleTable("eth0", "hep", (listed,), sets={"s:a": IpSet("s:a", "a", nets)})
    plan = InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, (PlannedEntry(listed, Stage.DRIVER),), held=1)
    draft, _ = same(predictor_of(plan, Host("jasper")), capture, Resources(), Host("jasper"), records_flows=False)
    found = (draft.stage == STAGES.index(Stage.DRIVER)).tolist()
    lengths = {prefix for *_, prefix in parts}
    assert found == [any((source >> (width - n) << (width - n), n) in networks for n in lengths) for source in sources]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_message_of_zeros_is_good_only_where_conntrack_looks_at_it(allowed: bool) -> None:
    """Its sum is not all ones; conntrack includes more in it (``icmp_error``), but sees no untracked packets."""
    frame = bytes.fromhex("060000000001020000000000 0800 4500001c0000000040010000 c00002090a0a0a0a") + bytes(8)
    data = np.frombuffer(frame.ljust(WIDTH, b"\0"), np.uint8).copy()[None]
    seal(data, np.array([0]))
    host = Host("jasper", addresses=(ip_interface("10.10.10.10/32"),))
    entries = (entry_of("allow", Action.ALLOW),) if allowed else ()
    plan = InterfacePlan(RuleTable("eth0", "hep", entries), None, Backend.IPTABLES, ())
    capture = Capture.from_frames([data.tobytes()[: len(frame)]])
    draft, _ = same(predictor_of(plan, host), capture, Resources(), host, records_flows=False)
    assert ended(draft, 0)[:2] == ((2, STAGES.index(Stage.SOCKET)) if allowed else (0, NO_STAGE))

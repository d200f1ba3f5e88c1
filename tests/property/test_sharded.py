"""A prediction in shards is the one of one process: packet by packet, in all totals, in what is said about the file.

The shards run here, one after the other, by the functions that workers run; tests/unit/dossim/cluster has real workers.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.cluster import run
from dossim.drill.situation import Situation
from dossim.model.errors import CaptureError
from dossim.model.host import Host
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.model.errors import UnsupportedRuleError
from enforcer.policy.resources import Resources
from tests.property.test_fragments import HOST, POLICY, ROUTER, datagrams
from tests.support.capture_files import damaged, hiding, pcap_file, pcapng_file
from tests.support.cut_captures import random_cuts
from tests.support.examples import PROFILE, examples
from tests.support.frames import captures, ethernet, ipv4, segment
from tests.support.sharded import Inline, ends_in_shards, in_one, sharded
from tests.support.strategies import hosts
from tests.support.tracked_strategies import spoken, tracked_resources

NO_POLICY = Resources()
COUNTS = (1, 2, 3, 3, 5, 5, 17, 64)
SEEDS = st.integers(0, 1 << 32)


def offloaded(frame: bytes, rng: random.Random) -> bytes:
    """Perhaps as before hardware completed it, from one of a few senders."""
    kind = rng.random()
    if kind > 0.3 or len(frame) < 60 or frame[12:14] != b"\x08\x00":
        return frame
    sender = bytes([2, 0, 0, 0, 0, rng.choice((1, 2))])
    frame = frame[:6] + sender + frame[12:]
    at = 14 + 20 + {6: 16, 17: 6}.get(frame[23], -10)
    if kind < 0.1:
        at = 14 + 10
    if kind > 0.2 and frame[23] in (6, 17):
        words = frame[26:34] + bytes([0, frame[23]]) + (len(frame) - 34).to_bytes(2, "big")
        total = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2))
        total = (total & 0xFFFF) + (total >> 16)
        return frame[:at] + ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big") + frame[at + 2 :]
    return frame[:at] + b"\0\0" + frame[at + 2 :]


def content_of(frames: list[bytes], rng: random.Random) -> bytes:
    """A file with these frames."""
    if rng.random() < 0.3:
        inner = pcap_file(frames, list(map(len, frames)), rng)
        for _ in range(rng.randint(1, 3)):
            frames.insert(rng.randint(0, len(frames)), hiding(inner, rng))
    frames = [offloaded(frame, rng) for frame in frames]
    lengths = random_cuts(frames, rng) if rng.random() < 0.3 else list(map(len, frames))
    content = rng.choice((pcap_file, pcapng_file))(frames, lengths, rng)
    return damaged(content, rng) if rng.random() < 0.15 else content


def require_equal(content: bytes, situation: Situation, rng: random.Random) -> Counter[str]:
    run._PART, before = rng.choice((1 << 26, 2000)), run._PART  # type: ignore[misc]  # Final elsewhere
    executor = Inline()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.pcap"
        path.write_bytes(content)
        try:
            one = in_one([path], situation)
        except CaptureError as error:
            with pytest.raises(CaptureError, match=re.escape(str(error))):
                sharded(executor, [path], situation, rng.choice(COUNTS))
            return Counter({"error": 1})
        counts_flows = rng.random() < 0.7
        found = sharded(executor, [path], situation, rng.choice(COUNTS), counts_flows=counts_flows)
        assert ends_in_shards(found) == one.ends
        assert found.totals == one.totals
        if counts_flows:
            assert found.flows == one.flows
        counted = sharded(
            executor, [path], situation, rng.choice((1, 3)), counts_flows=counts_flows, keeps_packets=False
        )
        assert (counted.totals, counted.flows) == (found.totals, found.flows)
    run._PART = before  # type: ignore[misc]  # Final elsewhere
    seen = Counter(executor.calls)
    seen["damaged"] = bool(one.totals.facts.warnings)
    seen["parts"] = seen["decide"] > 1
    seen["again"] = seen["predict_shard"] - len(found._shards)
    seen["offloaded"] = one.totals.completed > 0
    seen["ambiguous"] = one.totals.ambiguous > 0
    return seen


@settings(max_examples=examples(8, nightly=20_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), captures(), SEEDS, st.sampled_from(list(TrackedChoice)), st.data())
def test_conversations_and_fragments(
    policy: Resources, host: Host, others: list[bytes], seed: int, tracked: TrackedChoice, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    frames = [*others, *data.draw(spoken(host)), *datagrams(rng), *datagrams(rng)]
    rng.shuffle(frames)
    situation = Situation(policy, host, rng.choice((ModeChoice.RAW, ModeChoice.NATIVE)), tracked=tracked)
    try:
        require_equal(content_of(frames, rng), situation, rng)
    except UnsupportedRuleError:
        assert tracked is TrackedChoice.ENFORCE


def test_fragments_across_shards() -> None:
    """And what is in a file besides: captures in payloads, sections, damage, checksums that are not complete."""
    seen: Counter[str] = Counter()

    @settings(max_examples=examples(40, nightly=50_000), deadline=None)
    @given(SEEDS, st.sampled_from((HOST, ROUTER)))
    def agree(seed: int, host: Host) -> None:
        rng = random.Random(seed)
        frames = [frame for _ in range(rng.randint(1, 12)) for frame in datagrams(rng)]
        if rng.random() < 0.3:
            frames = [frame for frame in frames if frame[12:14] == b"\x08\x00"] or frames
        tracked = rng.choice((TrackedChoice.MODEL, TrackedChoice.ENFORCE))
        policy = rng.choice((POLICY, POLICY, NO_POLICY))  # without any, conntrack is not followed
        seen.update(
            require_equal(content_of(frames, rng), Situation(policy, host, ModeChoice.RAW, tracked=tracked), rng)
        )

    agree()
    expected = ("error", "damaged", "parts", "again", "places_of", "offloaded", "ambiguous")
    if PROFILE == "quick":  # so few have some of it
        expected = ("again", "places_of")
    assert not [name for name in expected if not seen[name]], seen


def test_flows_of_packets_with_checksums_of_zero(tmp_path: Path) -> None:
    """They end as if they were cut before it, and begin flows as what was captured."""
    source, destination = "192.0.2.33", "192.0.2.5"
    buf = bytearray(segment(6, source, destination, (1024, 80), b""))
    buf[13], buf[16:18] = 0x10, bytes(2)
    frame = ethernet(ipv4(bytes(buf), source=source, destination=destination, protocol=6), 0x0800)
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap_file([frame] * 3, [len(frame)] * 3, random.Random(1)))
    situation = Situation(NO_POLICY, replace(ROUTER, rp_filter=0), ModeChoice.RAW)
    one = in_one([path], situation)
    assert (one.totals.zero, one.flows.total) == (3, 1)
    for count in (1, 3):
        found = sharded(Inline(), [path], situation, count, counts_flows=True)
        assert (found.totals, found.flows) == (one.totals, one.flows)


@settings(max_examples=examples(8, nightly=2_000))
@given(SEEDS)
def test_several_captures_are_one(seed: int) -> None:
    rng = random.Random(seed)
    frames = [frame for _ in range(6) for frame in datagrams(rng)]
    rng.shuffle(frames)
    situation = Situation(POLICY, HOST, ModeChoice.RAW)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(3):
            mine = frames[number::3]
            paths.append(Path(folder) / f"{number}.pcap")
            paths[-1].write_bytes(rng.choice((pcap_file, pcapng_file))(mine, list(map(len, mine)), rng))
        one = in_one(paths, situation)
        found = sharded(Inline(), paths, situation, rng.choice(COUNTS), counts_flows=True)
        assert ends_in_shards(found) == one.ends
        assert (found.totals, found.flows) == (one.totals, one.flows)

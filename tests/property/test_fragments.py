"""Two witnesses agree on fragments of few datagrams, in any order: repeated, overlapping, contradicting, without end.

The engine reassembles them (``engine/defrag.c``); ``explain`` has its own model (``dossim/pipeline/reassembly.py``).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from ipaddress import ip_interface, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Fate
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from dossim.packet.cut import frame_on_wire
from dossim.pipeline.explain import Explainer
from dossim.predict import predict
from enforcer.model.choices import ModeChoice, RawChoice
from tests.support.cut_captures import cut_at
from tests.support.examples import examples
from tests.support.frames import BROADCAST_MAC, MAC, ME4, ME6, ethernet, ipv4, ipv6, segment
from tests.support.tracked_witnesses import differences as differences_of_sets
from tests.support.tracked_witnesses import explained as explained_tracked
from tests.support.tracked_witnesses import predicted as predicted_tracked
from tests.support.witnesses import differences, explained, plan_for, predicted
from tests.unit.dossim.pipeline import tracked_support as of
from tests.unit.dossim.pipeline.tracked_support import ALLOW, ingress, rule

HOST = Host(
    "jasper", addresses=(ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")), listen=(Listener(17, 9),), mtu=600
)
ROUTER = Host(
    "jasper",
    addresses=HOST.addresses,
    forward=True,
    routes=(ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/48")),
    mtu=600,
)
POLICY = of.given(
    of.untracked("raw", rule(of.Action.DENY, 17, 53), rule(of.Action.ALLOW, 17, 80), rule(of.Action.DENY, 6)),
    ingress("all", ALLOW),
)
PEERS = {4: ("203.0.113.7", "198.51.100.9"), 6: ("2001:db8::7", "2600::1")}
VICTIMS = {4: (ME4, ME4, "192.0.2.5"), 6: (ME6, ME6, "2001:db8:5::5")}
MORE = 0x2000
BACKENDS = (RawChoice.IPTABLES, RawChoice.NFTABLES)


def datagrams(rng: random.Random) -> list[bytes]:
    """Frames of fragments of up to three datagrams, disturbed."""
    frames = []
    for _ in range(rng.randint(1, 3)):
        version = rng.choice((4, 6))
        source, destination = rng.choice(PEERS[version]), rng.choice(VICTIMS[version])
        protocol = rng.choice((6, 17, 17, 17, 136, 1 if version == 4 else 58, 253))
        buf = segment(protocol, source, destination, (1024, rng.choice((9, 53, 80))), bytes(rng.choice((0, 40, 700))))
        buf = buf[: rng.choice((len(buf), len(buf), 7))]
        pieces, size = [], rng.choice((8, 16, 24, 512))
        for at in range(0, len(buf), size):
            pieces.append((at, buf[at : at + size], at + size < len(buf)))
        if rng.random() < 0.1:
            pieces.append((65528, bytes(rng.choice((8, 40))), rng.random() < 0.5))
        pieces = disturbed(pieces, rng)
        ident, tos, flags = rng.randint(0, 1), rng.choice((0, 0, 1)), rng.choice((0, 0, 0x4000))
        extensions = rng.choice(((), (), (), (0,), (60,), (60, 43)))
        frames += [
            framed(version, source, destination, protocol, piece, ident, tos, flags, extensions, rng)
            for piece in pieces
        ]
    if rng.random() < 0.5:
        rng.shuffle(frames)
    return frames


def disturbed(pieces: list[tuple[int, bytes, bool]], rng: random.Random) -> list[tuple[int, bytes, bool]]:
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        at = rng.randrange(len(pieces)) if pieces else 0
        match rng.randrange(6):
            case 0:
                pieces = pieces[:at] + pieces[at + 1 :]
            case 1:
                pieces = [*pieces, *pieces[at : at + 1]]
            case 2:
                pieces = [(start, data[: rng.randint(0, len(data))], more) for start, data, more in pieces]
            case 3:
                pieces = [(start, data, rng.random() < 0.7) for start, data, more in pieces]
            case 4:
                pieces = [*pieces, *((max(start - 8, 0), data, True) for start, data, _ in pieces[at : at + 1])]
            case _:
                rng.shuffle(pieces)
    return pieces


def framed(
    version: int, source: str, destination: str, protocol: int, piece: tuple[int, bytes, bool], ident: int, tos: int,
    flags: int, extensions: tuple[int, ...], rng: random.Random,
) -> bytes:  # fmt: skip
    at, data, more = piece
    tos = rng.choice((tos, tos, tos, 0, 3)) if rng.random() < 0.2 else tos
    mac = BROADCAST_MAC if rng.random() < 0.05 else MAC
    if version == 4:
        options = b"\x01" * 4 if rng.random() < 0.1 else b""
        fragment = flags | at // 8 | MORE * more
        packet = ipv4(
            data, source=source, destination=destination, protocol=protocol, ident=ident, fragment=fragment, tos=tos,
            options=options,
        )  # fmt: skip
        return ethernet(packet, 0x0800, destination=mac)
    buf = bytes([protocol, 0]) + (at & 0xFFF8 | more).to_bytes(2, "big") + ident.to_bytes(4, "big") + data
    kind = 44
    for extension in reversed(extensions):
        buf, kind = (
            bytes([kind, 0, 1, 4, 0, 0, 0, 0] if extension != 43 else [kind, 0, 0, 0, 0, 0, 0, 0]) + buf,
            extension,
        )
    return ethernet(
        ipv6(buf, source=source, destination=destination, next_header=kind, tos=tos), 0x86DD, destination=mac
    )


def test_fragments_end_as_explain_says() -> None:
    ends: Counter[str] = Counter()

    # In the quick profile as well: fewer do not end in all these ways.
    @settings(max_examples=max(160, examples(160, nightly=20_000)), deadline=None)
    @given(st.integers(0, 1 << 32), st.sampled_from((HOST, ROUTER)), st.sampled_from(BACKENDS))
    def agree(seed: int, host: Host, raw: RawChoice) -> None:
        frames = datagrams(random.Random(seed))
        choice = ModeChoice.NATIVE if seed % 3 == 0 else ModeChoice.RAW
        one, other = predicted(POLICY, host, choice, frames, raw), explained(POLICY, host, choice, frames, raw)
        assert not differences(one, other)
        ends.update(f"{end.column} {end.entry or end.reason}" for end in one)

    agree()
    reasons = " ".join(ends)
    for expected in (
        "raw gnp/raw",
        "overlap",
        "duplicate",
        "beyond the end",
        "without data",
        "timeout",
        "ECN",
        "no multiple of 8",
    ):
        assert expected in reasons, ends
    assert {"delivered", "forwarded", "socket", "raw", "defrag"} <= {end.split()[0] for end in ends}


@settings(max_examples=examples(40, nightly=5_000), deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from((HOST, ROUTER)))
def test_and_so_do_those_that_conntrack_sees(seed: int, host: Host) -> None:
    frames = datagrams(random.Random(seed))
    one = predicted_tracked(POLICY, host, ModeChoice.RAW, frames)
    assert not differences_of_sets(one, explained_tracked(POLICY, host, ModeChoice.RAW, frames))


def test_and_fragments_that_the_capture_cut() -> None:
    """Also why a datagram is left open, which names the lengths of the packet with its beginning."""
    ends: Counter[str] = Counter()

    # In the quick profile as well: fewer do not end in all these ways.
    @settings(max_examples=max(160, examples(160, nightly=20_000)), deadline=None)
    @given(st.integers(0, 1 << 32), st.sampled_from((HOST, ROUTER)))
    def agree(seed: int, host: Host) -> None:
        rng = random.Random(seed)
        frames = datagrams(rng)
        least = rng.choice((0, 34, 62, 80, 80, 80))  # from 62 on no header of IP is cut, except after extension headers
        lengths = [rng.choice((len(frame), rng.randint(min(least, len(frame)), len(frame)))) for frame in frames]
        capture = cut_at(frames, lengths)
        plan = plan_for(POLICY, host, ModeChoice.RAW)
        found = predict(capture, plan, host)
        one = [found.disposition(number) for number in range(len(frames))]
        explainer = Explainer(POLICY, host, mode=plan.mode, raw_backend=plan.raw_backend)
        other = [
            trace.disposition
            for trace in explainer.explain_capture([frame_on_wire(capture, number) for number in range(len(frames))])
        ]
        assert not differences(one, other)
        is_open = [end for end in one if end.fate is Fate.UNDETERMINED]
        assert is_open == [end for end in other if end.fate is Fate.UNDETERMINED]
        ends.update(re.sub("[0-9]+", "N", end.reason) for end in is_open)

    agree()
    reasons = " ".join(ends)
    for expected in ("a part of its datagram was cut by the capture: its", "bytes: its UDP checksum", "may be part of"):
        assert expected in reasons, ends
    assert len(ends) > 8, ends


def test_what_is_read_as_options_and_was_cut_stays_open() -> None:
    """Linux reads the payload of such a datagram as a destination options header; its last three bytes are missing."""
    options, fragment = bytes([44, 0, 1, 4, 0, 0, 0, 0]), bytes([17, 0, 0, 0, 0, 0, 0, 0])
    payload = bytes.fromhex("040000090008d104")
    packet = ipv6(options + fragment + payload, source=PEERS[6][0], destination=ME6, next_header=60)
    frame = ethernet(packet, 0x86DD)
    capture = cut_at([frame], [len(frame) - 3])
    found = predict(capture, plan_for(of.given(), HOST, ModeChoice.RAW), HOST).disposition(0)
    assert (found.fate, str(found.stage)) == (Fate.UNDETERMINED, "socket")
    whole = predict(Capture.from_frames([frame]), plan_for(of.given(), HOST, ModeChoice.RAW), HOST).disposition(0)
    assert (whole.fate, whole.reason) == (Fate.DROPPED, "an option is longer than its header")

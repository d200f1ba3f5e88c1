"""The offload program, run on this host: what it drops, what it counts, and that a device could load it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from enforcer.backends.xdp.offload import OFFLOAD_MAPS, load_offload, render_offload
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.bpf.offload import OBJECT
from enforcer.kernel.bpf.programs import info_by_fd
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import KernelError
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import Failsafe, Resources
from tests.bpf.offload_program import RECEIVER, XDP_DROP, XDP_PASS, Program, deny_lists, expected, loaded, plan_of
from tests.bpf.xdp_frames import (
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    GROUP,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    OTHER,
    OWN,
    QINQ,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    UNLISTED4,
    UNLISTED6,
    VLAN,
    chain,
    ether,
    fragment6,
    ipv4,
    ipv6,
    sctp,
    tcp,
    udp,
)
from tests.bpf.xdp_program import LISTS
from tests.support.counterexample import kept
from tests.support.frames import captures, frames
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.witnesses import breaches, predicted, table_of

pytestmark = pytest.mark.needs_root

POLICY = deny_lists(*LISTS)


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with loaded(POLICY) as found:
        yield found


def row(name: str, frame: bytes, dropped_by: int | None) -> object:
    verdict = "passes" if dropped_by is None else f"dropped by entry {dropped_by}"
    return pytest.param(frame, dropped_by, id=f"{name}: {verdict}")


SOURCES = [
    row("the first address of a net", ether(IPV4, ipv4(source="203.0.113.0")), 0),
    row("the last address of a net", ether(IPV4, ipv4(source="203.0.113.255")), 0),
    row("one below", ether(IPV4, ipv4(source="203.0.112.255")), None),
    row("one above", ether(IPV4, ipv4(source=UNLISTED4)), None),
    row("in the second list alone", ether(IPV4, ipv4(source="198.51.100.1")), 1),
    row("in a longer prefix of the second, covered by the first", ether(IPV4, ipv4(source="203.0.113.128")), 0),
    row("v6 the last address", ether(IPV6, ipv6(source="2001:db8:bad:ffff:ffff:ffff:ffff:ffff")), 0),
    row("v6 one above", ether(IPV6, ipv6(source=UNLISTED6)), None),
    row("v6 all zeros", ether(IPV6, ipv6(source="::")), None),
]
LINK = [
    row("not IP", ether(0x88B5, ipv4()), None),
    row("IPv6 type, IPv4 packet", ether(IPV6, ipv4() + bytes(40)), None),
    row("two tags that name no VLAN", ether(IPV4, ipv4(), (QINQ, 0), (VLAN, 0xE000)), 0),
    row("three", ether(IPV4, ipv4(), (QINQ, 0), (VLAN, 0), (VLAN, 0)), None),
    row("a VLAN's", ether(IPV4, ipv4(), (VLAN, 5)), None),
    row("a VLAN's after id 0", ether(IPV6, ipv6(), (QINQ, 0), (VLAN, 5)), None),
    row("a tag cut short", ether(IPV4, ipv4(), (VLAN, 5))[:16], None),
]
HEADERS = [
    row("cut short", ether(IPV4, ipv4()[:19]), None),
    row("IHL below 5", ether(IPV4, ipv4(header_words=4)), None),
    row("total length below the header", ether(IPV4, ipv4(bytes(8), total=19)), None),
    row("cut in its options", ether(IPV4, ipv4(bytes(39), header_words=15, total=60)), None),
    row("options", ether(IPV4, ipv4(options=b"\1" * 40)), 0),
    row("v6 cut short", ether(IPV6, ipv6()[:39]), None),
    row("v6 of version 4", ether(IPV6, ipv6(version=4)), None),
]
TRANSPORT = [
    row("to a failsafe", ether(IPV4, ipv4(tcp(dport=22), protocol=TCP)), None),
    row("an adjacent port", ether(IPV4, ipv4(tcp(dport=23), protocol=TCP)), 0),
    row("from a failsafe", ether(IPV4, ipv4(udp(sport=53), protocol=UDP)), None),
    row("to that port", ether(IPV4, ipv4(udp(dport=53), protocol=UDP)), 0),
    row("TCP cut short", ether(IPV4, ipv4(tcp(length=19), protocol=TCP)), None),
    row("TCP cut by the total length", ether(IPV4, ipv4(tcp(), protocol=TCP, total=39)), None),
    row("SCTP, which has no failsafe", ether(IPV4, ipv4(sctp(dport=22), protocol=SCTP)), 0),
    row("a later fragment of TCP", ether(IPV4, ipv4(bytes(64), protocol=TCP, offset=1)), None),
    row("a later fragment of ICMP", ether(IPV4, ipv4(bytes(64), protocol=ICMP, offset=1)), 0),
    row("protocol 0, which might be anything", ether(IPV4, ipv4(protocol=0)), None),
    row("v6 to a failsafe", ether(IPV6, ipv6(tcp(dport=22), next_header=TCP)), None),
    row("v6, an adjacent port", ether(IPV6, ipv6(tcp(dport=23), next_header=TCP)), 0),
    row("v6 ICMP", ether(IPV6, ipv6(bytes(8), next_header=ICMPV6)), 0),
    row("v6 fragment", ether(IPV6, ipv6(fragment6(ICMPV6) + bytes(8), next_header=FRAGMENT)), None),
    *(
        row(f"v6 after extension header {kind}", chain(kind, payload=tcp(dport=80)), None)
        for kind in (HOP_BY_HOP, ROUTING, DESTINATION, AUTHENTICATION)
    ),
]
ROWS = [*SOURCES, *LINK, *HEADERS, *TRANSPORT]


@pytest.mark.parametrize(("frame", "dropped_by"), ROWS)
def test_what_is_dropped_and_by_which_entry(program: Program, frame: bytes, dropped_by: int | None) -> None:
    assert program.dropped_by(frame) == dropped_by
    assert expected(POLICY, frame) == dropped_by


def test_without_failsafes_nothing_after_the_addresses_is_indeterminate() -> None:
    table = deny_lists(*LISTS, inbound=(), outbound=())
    with loaded(table) as found:
        for frame in (chain(HOP_BY_HOP, payload=tcp()), ether(IPV4, ipv4(tcp(length=3), protocol=TCP, offset=1))):
            assert found.dropped_by(frame) == expected(table, frame) == 0


def test_a_failsafe_restricted_to_a_net_passes_any_source() -> None:
    elsewhere = Failsafe(TCP, 22, next(iter(Nets.of(["10.0.0.0/8"]))))
    with loaded(deny_lists(*LISTS, inbound=(elsewhere,), outbound=())) as found:
        assert found.dropped_by(ether(IPV4, ipv4(tcp(dport=22), protocol=TCP))) is None


def test_a_frame_for_another_interface_passes(program: Program) -> None:
    frame = ether(IPV4, ipv4())[6:]
    assert [program.run_as_it_is(to + frame) for to in (OWN, GROUP, OTHER)] == [XDP_DROP, XDP_DROP, XDP_PASS]


# -- properties -------------------------------------------------------------------------------------------------------

POOL = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "203.0.113.0/24", "203.0.113.7/32", "::/0"]
POOL += ["2001:db8::/32", "2001:db8:bad::/48", "2001:db8:bad::7/128", "fd00::/8"]
FAILSAFES = st.lists(st.builds(Failsafe, st.sampled_from([TCP, UDP, SCTP]), st.sampled_from([22, 53, 80])), max_size=2)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.lists(st.sampled_from(POOL), max_size=4), min_size=1, max_size=4),
    FAILSAFES.map(tuple),
    FAILSAFES.map(tuple),
    st.lists(frames(), min_size=1, max_size=20),
)
def test_it_decides_as_walking_headers_and_entries_does(
    lists: list[list[str]],
    inbound: tuple[Failsafe, ...],
    outbound: tuple[Failsafe, ...],
    several: list[bytes],
) -> None:
    table = deny_lists(*lists, inbound=inbound, outbound=outbound)
    several += [param.values[0] for param in ROWS]  # type: ignore[attr-defined]  # of this subclass
    with loaded(table) as found:
        for frame in several:
            if len(frame) >= 14:
                assert found.dropped_by(frame) == expected(table, frame), frame.hex()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), captures(), st.integers(0, 9))
def test_it_drops_nothing_that_raw_would_not(policy: Resources, host: Host, others: list[bytes], seed: int) -> None:
    table = table_of(policy, host)
    several = [frame for frame in (*reach(table, host, seed).frames, *others) if len(frame) >= 14]
    names = [entry.name for entry in plan_of(table).xdp_entries]
    with kept("found-offload-within-raw", policy, host, several):
        raw = predicted(policy, host, ModeChoice.RAW, several)
        with loaded(table) as found:
            entries = [found.dropped_by(frame) for frame in several]
        early = [
            end if at is None else Disposition(Fate.DROPPED, Stage.NIC_OFFLOAD, names[at])
            for at, end in zip(entries, raw, strict=True)
        ]
        assert not breaches(early, raw)


# -- what a device can load -------------------------------------------------------------------------------------------

ELF_SECTION = struct.Struct("<IIQQQQIIQQ")
JUMP, CALL, EXIT = 0x05, 0x85, 0x95


class Instruction(NamedTuple):
    opcode: int
    source: int
    offset: int
    immediate: int


def instructions() -> list[Instruction]:
    """The section ``xdp`` of the object."""
    image = OBJECT.read_bytes()
    (at,) = struct.unpack_from("<Q", image, 40)
    size, count, names = struct.unpack_from("<HHH", image, 58)
    sections = [ELF_SECTION.unpack_from(image, at + size * number) for number in range(count)]
    strings = sections[names][4]
    code = next(item for item in sections if image[strings + item[0] :].startswith(b"xdp\0"))
    words = struct.iter_unpack("<BBhi", image[code[4] : code[4] + code[5]])
    return [Instruction(opcode, registers >> 4, offset, immediate) for opcode, registers, offset, immediate in words]


def followers(code: list[Instruction], at: int) -> list[int]:
    """The instructions that may come next."""
    opcode, _, offset, _ = code[at]
    if opcode == EXIT:
        return []
    if opcode == JUMP:
        return [at + 1 + offset]
    is_branch = opcode & 7 in (5, 6) and opcode != CALL
    return [at + 1, at + 1 + offset] if is_branch else [at + 1]


def test_the_program_has_neither_loops_nor_calls_but_look_ups() -> None:
    code = instructions()
    assert {(item.source, item.immediate) for item in code if item.opcode == CALL} == {(0, 1)}  # bpf_map_lookup_elem
    assert len(code) < 4096
    after = TopologicalSorter({at: followers(code, at) for at in range(len(code))})
    assert len(list(after.static_order())) == len(code)  # raises CycleError if there is a loop


def test_its_maps_are_arrays_and_hashes_without_flags_and_of_small_elements() -> None:
    with BpfObject(OBJECT) as obj:
        obj.load()
        for name in OFFLOAD_MAPS.values():
            with obj.map(name) as found:
                kind, _, key, value, _, flags = struct.unpack_from("=IIIIII", info_by_fd(found.fd, 64))
                assert (kind in (1, 2), flags) == (True, 0)
                assert -(-key // 8) * 8 + -(-value // 8) * 8 <= 64


def test_a_device_that_is_none_is_refused_with_the_kernels_word() -> None:
    with pytest.raises(KernelError, match="the device rejects the map settings"):
        load_offload(LIBBPF, render_offload(plan_of(POLICY), receiver=RECEIVER), 1)  # the loopback interface

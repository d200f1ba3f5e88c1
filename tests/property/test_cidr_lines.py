"""CIDRs parsed in columns, and runs of them that the YAML parser does not see: the same as one by one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enforcer.model.cidr_text import LONGEST6, parse6
from enforcer.model.errors import PolicyError
from enforcer.model.nets import IPNetwork, Nets, parse_cidr
from enforcer.policy import cidr_lines, nodes
from enforcer.policy.load import load_text
from tests.support.examples import examples

FOUR = ("203.0.113.0/24", "198.51.100.7", "10.1.2.3/8", "0.0.0.0/0", "255.255.255.255/32")
SIX = ("2001:db8::/32", "2001:db8::7", "::/0", "fe80::", "::1/128", "2001:db8:ffff::/48")
CIDRS = (*FOUR, *SIX, "::ffff:192.0.2.1/128", "::ffff:c000:201")
ODD = (
    *("01.2.3.4/8", "1.2.3.4/33", "1.2.3.4/032", "1.2.3.4/", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4/8/8"),
    *("1:30", "7", "1.5", "x", "1.2.3.4/129", "::/129", "2001:db8::/1_2", "run-0", "", "~", "{a: 1}", "&a 1.2.3.4"),
    *("*a", "!!str 1.2.3.4", "1.2.3.4 # why", "1.2.3.4 #é", "1.2.3.4 \x07", "1.2.3.4: b", "- 1.2.3.4", "|", ">-"),
    *('"1.2.3.4', "'1.2.3.4\"", "1.2.3.4\t", "1.2.3.4\r"),
)

item = st.sampled_from([*CIDRS * 3, *ODD])
quoted = st.tuples(item, st.sampled_from(["", "", "", '"', "'"])).map(lambda pair: pair[1] + pair[0] + pair[1])
indent = st.sampled_from(["", "  ", "  ", "  ", "    "])
trail = st.sampled_from(["", "", "", " ", "  # why", " #", "#no comment"])
line = st.tuples(indent, quoted, trail).map(lambda parts: f"{parts[0]}- {parts[1]}{parts[2]}")
CONTEXT = (
    *("nets:", "- a", "- |", "  - >", "- 'open", "x: y", "---", "...", "", "# remark", "? - a", "  : b", "- [", "]"),
    *("<<: *a", "&a b:", "\ufeff"),
)
opening = st.sampled_from(CONTEXT)
run = st.tuples(indent, st.lists(st.sampled_from(CIDRS), min_size=2, max_size=6)).map(
    lambda pair: "\n".join(f"{pair[0]}- {cidr}" for cidr in pair[1])
)
lines = st.lists(st.one_of(line, run, run, opening, opening), max_size=12).map("\n".join)
texts = st.tuples(lines, st.sampled_from(["", "\n", "\r\n"])).map("".join)


@given(texts, st.sampled_from(["\n", "\n", "\r\n"]))
@example("nets:\n- 1.2.3.4/24\n- 1.2.3.4/25\n  still the last\n", "\n")
@example("a: 'b\n\n  c'\nd: |\n  e\nf:\n- 1.2.3.4/24\n- 1.2.3.4/25\ng: \"h\\\n  i\"\n", "\r\n")
@example("a:\n- 1.2.3.4/24\n- 1.2.3.4/25\n\r", "\r\n")
@example("a: |\n  - 1.2.3.4/24\n  - 1.2.3.4/25\n", "\n")
@example("- foo\n  - 1.2.3.4/24\n  - 1.2.3.4/25\n", "\n")
@example("a: &a\n- 1.2.3.4/24\n- 1.2.3.4/25\nb: *a\nc: [d, '\n", "\n")
@settings(max_examples=examples(600, nightly=200_000))
def test_a_text_with_runs_is_read_as_the_yaml_parser_reads_it(text: str, ending: str) -> None:
    text = text.replace("\n", ending)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cidr_lines, "RUN_MIN", 2)
        quick = _read(text)
        patch.setattr(nodes, "runs_of", lambda text: [])
        assert quick == _read(text)


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CR LF"])
def test_runs_are_found_whichever_way_lines_end(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def noted(text: bytes, *others: object) -> bytes:
        seen.append(text)
        return shortened(text, *others)  # type: ignore[arg-type]  # checked when it runs

    shortened = nodes.shortened
    monkeypatch.setattr(nodes, "shortened", noted)
    list(nodes.from_text(ending.join(["nets:", *(f"- 192.0.2.{at}" for at in range(cidr_lines.RUN_MIN)), ""])))
    assert seen, "the YAML parser has read each line"


def _read(text: str) -> tuple[list[nodes.Node], object]:
    """The documents before the first fault, and the fault."""
    found = []
    try:
        for node in nodes.from_text(text):
            found.append(node)
    except nodes.DocumentFault as fault:
        return found, (fault.message, fault.line, fault.column)
    return found, None


@given(st.lists(item, max_size=20), st.sampled_from(["", '"']))
@settings(max_examples=examples(200, nightly=50_000))
def test_a_set_with_runs_has_the_nets_findings_and_notes_of_one_read_item_by_item(items: list[str], quote: str) -> None:
    head = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: a}\nspec:\n  nets:\n"
    text = head + "".join(f"  - {quote}{item}{quote}\n" for item in items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cidr_lines, "RUN_MIN", 2)
        quick = _loaded(text)
        patch.setattr(nodes, "runs_of", lambda text: [])
        assert quick == _loaded(text)


def _loaded(text: str) -> object:
    try:
        return load_text(text)
    except PolicyError as error:
        return error.findings


@given(st.lists(st.sampled_from([*CIDRS * 4, *ODD]), max_size=8))
@settings(max_examples=examples(200, nightly=50_000))
def test_nets_parsed_in_columns_are_those_parsed_one_by_one(texts: list[str]) -> None:
    many = texts * 64  # enough for columns, whatever is in it
    assert _parsed(Nets.of, many) == _parsed(_one_by_one, texts)


def _one_by_one(texts: list[str]) -> list[IPNetwork]:
    rows = {parse_cidr(text) for text in texts}
    return [(IPv4Network if row[0] == 4 else IPv6Network)(row[1:]) for row in sorted(rows)]


def _parsed(parse: Callable[[list[str]], Iterable[IPNetwork]], texts: list[str]) -> list[IPNetwork] | str:
    try:
        return list(parse(texts))
    except ValueError as error:
        return str(error)


group = st.sampled_from(["", "", "0", "1", "a", "AB", "0db8", "00001", "ffff", "g"])
address6 = st.one_of(
    st.integers(0, 2**128 - 1).map(lambda value: str(IPv6Address(value))),
    st.integers(0, 2**128 - 1).map(lambda value: IPv6Address(value).exploded.upper()),
    st.lists(st.tuples(group), min_size=1, max_size=10).map(lambda groups: ":".join(text for (text,) in groups)),
    st.tuples(st.sampled_from([0, 16, 64, 112]), st.integers(0, 0xFFFF)).map(
        lambda pair: str(IPv6Address(pair[1] << pair[0]))
    ),
)
length6 = st.sampled_from(["", "", "/0", "/1", "/63", "/64", "/65", "/127", "/128", "/129", "/", "/032", "/0128", "/x"])


@given(st.lists(st.tuples(address6, length6).map("".join), min_size=1, max_size=40))
@example(
    ["::", "::1", "1::", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", ":", "", ":::"]
)
@example(
    ["1::2::3", ":1::", "1:", "::ffff:c000:201", "::ffff:0:0/95", "::fffe:c000:201", "1:2:3::4:5:6:7:8", "12345::"]
)
@settings(max_examples=examples(400, nightly=100_000))
def test_ipv6_parsed_in_columns_is_what_inet_pton_reads(texts: list[str]) -> None:
    lines = "\n".join(texts).encode() + b"\n"
    text = np.frombuffer(lines + bytes(LONGEST6), np.uint8)
    breaks = np.flatnonzero(text == ord("\n"))
    good, network, length, behind = parse6(text, np.append(0, breaks[:-1] + 1))
    found = [
        (high << 64 | low, bits) if is_good and end == stop else None
        for is_good, (high, low), bits, end, stop in zip(
            good.tolist(), network.tolist(), length.tolist(), behind.tolist(), breaks.tolist(), strict=True
        )
    ]
    assert found == [_read6(each) for each in texts]


def _read6(text: str) -> tuple[int, int] | None:
    """By ``inet_pton``; None for what parse6 leaves to others."""
    address, slash, length = text.partition("/")
    if slash and not (length.isdigit() and len(length) <= 3 and int(length) <= 128):
        return None
    try:
        value = int.from_bytes(socket.inet_pton(socket.AF_INET6, address), "big")
    except OSError:
        return None
    bits = int(length) if slash else 128
    return None if value >> 32 == 0xFFFF else (value >> (128 - bits) << (128 - bits), bits)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 7), st.sampled_from([0, 63, 64, 125]), st.sampled_from([0, 1, 8, 63, 64, 65, 127, 128])
        ),
        max_size=12,
    )
)
@settings(max_examples=examples(300, nightly=50_000))
def test_ranges_of_ipv6_cover_the_prefixes_and_do_not_overlap(rows: list[tuple[int, int, int]]) -> None:
    nets = [IPv6Network((value << shift, length), strict=False) for value, shift, length in rows]
    wanted: list[tuple[int, int]] = []
    for first, last in sorted((int(net.network_address), int(net.broadcast_address)) for net in nets):
        if wanted and first <= wanted[-1][1]:
            wanted[-1] = wanted[-1][0], max(last, wanted[-1][1])
        else:
            wanted.append((first, last))
    ranges = [[high << 64 | low for high, low in side.tolist()] for side in Nets.of(nets).ranges6]
    assert list(zip(*ranges, strict=True)) == wanted

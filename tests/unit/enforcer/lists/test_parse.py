"""Address lists: what each format says, and which lines are none of its entries."""

from __future__ import annotations

import pytest

from enforcer.lists.entry import covering, networks_of, written
from enforcer.lists.parse import BAD_KEPT, Format, Shape, parse

IPSET = """\
create bad hash:net family inet hashsize 1024 maxelem 65536
add bad 198.51.100.0/25
add bad 203.0.113.7 timeout 300 comment "of today"
"""

# case, shape, text, CIDRs, lines that are bad with their reasons
LISTS: list[tuple[str, Shape, str, list[str], list[tuple[int, str]]]] = [
    ("plain lines", Shape(), "198.51.100.7\n2001:db8::/32\n", ["198.51.100.7/32", "2001:db8::/32"], []),
    ("comments of three kinds, and after entries", Shape(),
     "# a\n; b\n// c\n\n  198.51.100.7 # d\n203.0.113.0/24;e\r\n203.0.112.1 // f",
     ["198.51.100.7/32", "203.0.113.0/24", "203.0.112.1/32"], []),
    ("DROP text", Shape(), "; List 2026/05/20\n; Expires: never\n198.51.100.0/25 ; SBL1\n; EOF\n",
     ["198.51.100.0/25"], []),
    ("host bits are cleared", Shape(), "198.51.100.7/24\n", ["198.51.100.0/24"], []),
    ("a range", Shape(), "198.51.100.1-198.51.100.4\n", ["198.51.100.1/32", "198.51.100.2/31", "198.51.100.4/32"], []),
    ("a range with spaces", Shape(), "198.51.100.0 - 198.51.100.255\n", ["198.51.100.0/24"], []),
    ("a range of IPv6", Shape(), "2001:db8::-2001:db8::1\n", ["2001:db8::/127"], []),
    ("a mask", Shape(), "198.51.100.7/255.255.255.0\n", ["198.51.100.0/24"], []),
    ("an IPv4-mapped address is IPv4", Shape(), "::ffff:198.51.100.7\n", ["198.51.100.7/32"], []),
    ("bad lines have their numbers and reasons", Shape(),
     "198.51.100.7\nevil.example\n\n198.51.100.256\n198.51.100.0/33\n198.51.100.9-198.51.100.1\n198.51.100.1-2001:db8::\n"
     "198.51.100.0/255.0.255.0\n198.51.100.8 198.51.100.9\n010.0.0.1\n<html>\n",
     ["198.51.100.7/32"],
     [(2, "expected an IP address"), (4, "expected an IP address"), (5, "expected a prefix length"),
      (6, "a range whose end"), (7, "a range from one"), (8, "a mask with gaps"), (9, "expected an IP address"),
      (10, "expected an IP address"),
      (11, "no IP address")]),
    ("a wildcard mask is no mask", Shape(), "198.51.100.0/0.0.0.255\n", [], [(1, "a mask with gaps")]),
    ("JSON lines", Shape(Format.NDJSON),
     '{"cidr":"198.51.100.0/25","sblid":"X"}\n\n{"type":"metadata","timestamp":1760000000,"records":1}\n',
     ["198.51.100.0/25"], []),
    ("JSON lines with another key", Shape(Format.NDJSON, key="ip"), '{"ip":"198.51.100.7"}\n', ["198.51.100.7/32"], []),
    ("JSON lines that are something else", Shape(Format.NDJSON),
     '{"cidr":"198.51.100.0/25"}\n{"cidr":7}\n[]\n{"cidr":"x.y"}\n{"cidr":\n',
     ["198.51.100.0/25"], [(2, "no object with"), (3, "no object with"), (4, "expected an IP"), (5, "not JSON")]),
    ("ipset save", Shape(Format.IPSET), IPSET, ["198.51.100.0/25", "203.0.113.7/32"], []),
    ("one of several ipsets", Shape(Format.IPSET, set="bad"),
     IPSET + "create good hash:ip family inet\nadd good 192.0.2.1\n", ["198.51.100.0/25", "203.0.113.7/32"], []),
    ("ipset with exceptions and old commands", Shape(Format.IPSET),
     "-N bad nethash\n-A bad 198.51.100.0/24\nadd bad 198.51.100.7 nomatch\nflush bad\n",
     ["198.51.100.0/24"], [(4, "neither"), (3, "an exception")]),
    ("CSV by number, names before", Shape(Format.CSV, column=2),
     'seen,"address",port\n2026-01-01,198.51.100.7,443\n# no row\n\n2026-01-01,"203.0.113.0/24",1\n2026-01-01\nx,y,z\n',
     ["198.51.100.7/32", "203.0.113.0/24"], [(6, "it has 1 columns"), (7, "no IP")]),
    ("CSV by name", Shape(Format.CSV, column="Address", delimiter=";"), "seen; address\n1; 198.51.100.7\n",
     ["198.51.100.7/32"], []),
    ("CSV with a quote that is not closed hides no line", Shape(Format.CSV, column=1),
     '198.51.100.7,"x\n203.0.113.7,y\n"203.0.113.8,z\n203.0.113.9,z\n',
     ["198.51.100.7/32", "203.0.113.7/32", "203.0.113.9/32"], [(3, "expected an IP address")]),
    ("CSV without names", Shape(Format.CSV, column=1), "198.51.100.7,x\n", ["198.51.100.7/32"], []),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "text", "cidrs", "bad"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS])
def test_a_list_has_these_networks_and_these_bad_lines(
    shape: Shape, text: str, cidrs: list[str], bad: list[tuple[int, str]]
) -> None:
    found = parse(text, shape)
    assert [written(network) for network in found.networks] == cidrs
    assert not found.problem
    assert [item.line for item in found.first_bad] == [line for line, _ in bad]
    assert found.bad == len(bad)
    for item, (line, why) in zip(found.first_bad, bad, strict=True):
        assert item.why.startswith(why), item
        assert str(item).startswith(f"line {line}: ")


@pytest.mark.parametrize(
    ("shape", "text", "problem"),
    [
        (Shape(Format.NDJSON), '{"cidr":"198.51.100.0/25"}\n{"type":"metadata","records":2}\n',
         "2 records, but there are 1"),
        (Shape(Format.IPSET), IPSET + "add good 192.0.2.1\n", "it has 2 sets"),
        (Shape(Format.IPSET, set="worse"), IPSET, "no set 'worse', only bad"),
        (Shape(Format.IPSET), "create x hash:net,port family inet\nadd x 192.0.2.1,80\n", "of type hash:net,port"),
        (Shape(Format.CSV, column="ip"), "seen,address\n1,198.51.100.7\n", "no column 'ip'"),
    ],
)  # fmt: skip
def test_a_list_that_is_not_what_was_published_has_a_problem(shape: Shape, text: str, problem: str) -> None:
    assert problem in parse(text, shape).problem


def test_the_header_says_when_a_list_ends() -> None:
    found = parse("; Expires: Wed, 20 May 2026 10:00:00 GMT\n# Last-Modified: Tue, 19 May 2026 10:00:00 GMT\n", Shape())
    assert (found.expires_s, found.modified_s) == (1779271200, 1779184800)
    assert parse("; Expires: soon\n", Shape()).expires_s is None


@pytest.mark.parametrize(
    "line", [" " * 2_000_000 + "x", "1" + " " * 2_000_000 + "x", "#" * 2_000_000, "add " + "x" * 2_000_000]
)
@pytest.mark.parametrize("kind", list(Format))
def test_a_long_line_takes_linear_time(line: str, kind: Format) -> None:
    """Quadratic, it would take hours."""
    found = parse(line, Shape(kind))
    assert not found.good
    assert all(len(str(item)) < 1000 for item in found.first_bad)


def test_of_many_bad_lines_the_first_are_kept_and_all_are_counted() -> None:
    found = parse("x\n" * 1000, Shape())
    assert (found.bad, len(found.first_bad)) == (1000, BAD_KEPT)


def test_the_widest_range_is_one_network() -> None:
    assert list(covering(4, 0, (1 << 32) - 1)) == [(4, 0, 0)]
    assert networks_of("0.0.0.0-255.255.255.255") == [(4, 0, 0)]

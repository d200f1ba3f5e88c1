"""What keeps a list from replacing the one that is enforced, and what is said then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enforcer.feeds.canonical import Protected, Size
from enforcer.feeds.config import Feed
from enforcer.feeds.guards import FINAL, Guard, Limits
from enforcer.feeds.judge import judged
from enforcer.feeds.private import special
from enforcer.lists.entry import networks_of, written
from enforcer.lists.parse import Format, Shape

FEED = Feed("x", "x.txt", Shape(), {"list": "deny"})
NOW = 1_790_000_000.0
ONE_IN_A_THOUSAND = "".join(f"198.51.{at // 250}.{at % 250}\n" for at in range(999)) + "x\n"

# case, feed, text, size before, guard, what is said
REFUSED: list[tuple[str, Feed, str, Size | None, Guard, str]] = [
    ("nothing", FEED, "", None, Guard.EMPTY, "the list is empty: no entry; the current sets stay"),
    ("comments alone", FEED, "# moved\n", Size(5, 5), Guard.EMPTY, "'enforcer feed remove x'"),
    ("a page instead", FEED, "<html>\n<p>\n", None, Guard.EMPTY, "2 lines, none of them an entry (line 1: "),
    ("another format", FEED, '{"cidr":"198.51.100.0/25"}\n', None, Guard.EMPTY, "it looks like format: ndjson"),
    ("two bad of 1,001", FEED, ONE_IN_A_THOUSAND + "y\n", None, Guard.BAD_LINES,
     "2 of 1,001 lines are not entries, more than 0.10%: line 1000: "),
    ("a wide network", FEED, "198.0.0.0/7\n", None, Guard.WIDE, "it would deny 198.0.0.0/7, wider than /8"),
    ("a wide network, of which the rest is wide", FEED, "8.0.0.0/6\n", None, Guard.WIDE, "it would deny 8.0.0.0/6, "),
    ("everything", FEED, "0.0.0.0/0\n", None, Guard.EVERYTHING, "it would deny every address; the current sets stay"),
    ("all of IPv6 as a range", FEED, "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n", None, Guard.EVERYTHING, "every"),
    ("more than is read", replace(FEED, limits=Limits(cidrs=1)), "".join(f"198.51.100.{at}\n" for at in range(11)),
     None, Guard.ENTRIES, "it has more than 10 entries, which are not all read; the current sets stay; limits.cidrs"),
    ("a wide network of IPv6", FEED, "2000::/12\n", None, Guard.WIDE, "limits.widestIPv6"),
    ("too many", replace(FEED, limits=Limits(cidrs=1)), "198.51.100.1\n198.51.100.3\n", None, Guard.CIDRS,
     "it has 2 CIDRs, more than 1; to insist"),
    ("a sixteenth of IPv4 and more", FEED, "".join(f"{at}.0.0.0/8\n" for at in range(20, 37)), None, Guard.SHARE,
     "it would deny 6.6% of all IPv4 addresses, more than 6.2%"),
    ("growth", FEED, "198.51.100.1\n198.51.100.3\n198.51.100.5\n198.51.100.7\n", Size(2, 2), Guard.CHANGE,
     "from 2 CIDRs to 4, a change by more than 50%: it would deny 2 CIDRs more"),
    ("growth in addresses alone", FEED, "198.51.100.0/24\n", Size(1, 128), Guard.CHANGE,
     "from 128 IPv4 addresses to 256, a change by more than 50%: it would deny 128 IPv4 addresses more"),
    ("shrinking", FEED, "198.51.100.1\n", Size(3, 3), Guard.CHANGE, "it would let through 2 CIDRs that are denied now"),
    ("cut off", replace(FEED, shape=Shape(Format.NDJSON)),
     '{"cidr":"198.51.100.1"}\n{"type":"metadata","records":2}\n', None, Guard.INCOMPLETE,
     "says 2 records, but there are 1"),
    ("all of it private", FEED, "10.0.0.0/8\n192.168.0.0/16\n", None, Guard.EMPTY, "all of it is protected"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("feed", "text", "before", "guard", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_list_is_refused_and_what_it_would_have_done_is_said(
    feed: Feed, text: str, before: Size | None, guard: Guard, said: str
) -> None:
    found = judged(text.encode(), feed, special(private=True), before, NOW)
    assert guard in [item.guard for item in found.refusals]
    told = next(item for item in found.refusals if item.guard is guard).told(feed.name)
    assert said in told
    assert ("--accept x" in told) == (guard not in FINAL)


TAKEN: list[tuple[str, Feed, str, Size | None]] = [
    ("one bad of 1,000", FEED, ONE_IN_A_THOUSAND, None),
    ("the widest", FEED, "198.0.0.0/8\n", None),
    ("neighbours that are wide together", FEED, "198.0.0.0/8\n199.0.0.0/8\n", None),
    ("a sixteenth", FEED, "".join(f"{at}.0.0.0/8\n" for at in range(20, 36)), None),
    ("growth by half", FEED, "198.51.100.1\n198.51.100.3\n198.51.100.5\n", Size(2, 2)),
    ("shrinking by half", FEED, "198.51.100.1\n", Size(2, 2)),
    ("growth where any is allowed", replace(FEED, limits=Limits(change=0)), "198.51.100.0/24\n", Size(1, 1)),
    ("a wide network that is partly protected, as FireHOL has it", FEED, "224.0.0.0/3\n198.51.100.0/24\n", None),
]


@pytest.mark.parametrize(("feed", "text", "before"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_a_list_that_just_satisfies_a_guard_is_taken(feed: Feed, text: str, before: Size | None) -> None:
    found = judged(text.encode(), feed, special(private=True), before, NOW)
    assert not found.refusals
    assert found.size.cidrs == len(found.networks) > 0


def test_what_is_protected_is_taken_out_and_told() -> None:
    own = Protected(networks_of("198.51.100.7")[0], "an address of HostEndpoint jasper")
    found = judged(b"198.51.100.6/31\n10.0.0.0/8\n", FEED, [*special(private=True), own], None, NOW)
    assert [written(network) for network in found.networks] == ["198.51.100.6/32"]
    assert found.notes == [
        "not denied: 10.0.0.0/8, private (RFC 1918); the list has 10.0.0.0/8",
        "not denied: 198.51.100.7/32, an address of HostEndpoint jasper; the list has 198.51.100.6/31",
    ]


def test_private_networks_stay_in_a_list_of_ones_own() -> None:
    found = judged(b"10.1.0.0/16\n", FEED, special(private=False), None, NOW)
    assert [written(network) for network in found.networks] == ["10.1.0.0/16"]


def test_a_list_that_has_expired_is_taken_with_a_warning() -> None:
    found = judged(b"; Expires: Wed, 20 May 2026 10:00:00 GMT\n198.51.100.0/24\n", FEED, [], None, NOW)
    assert not found.refusals
    assert "expired by its own header" in found.notes[0]
    assert found.expires_s == 1779271200


def test_comments_may_be_of_any_encoding() -> None:
    assert not judged("# Müller\n198.51.100.7\n".encode("latin-1"), FEED, [], None, NOW).refusals

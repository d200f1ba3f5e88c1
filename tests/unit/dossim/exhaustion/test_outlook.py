"""What predict and plan say of a connection tracking table: it fills or not, when, and what is assumed."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from dossim.exhaustion.flows import FlowClass, NewFlows
from dossim.exhaustion.formulas import Interval
from dossim.exhaustion.outlook import Fills, fill_rates, outlook, remedies
from dossim.exhaustion.table import DEFAULT_TIMEOUTS, LINUX_DEFAULTS, Table, assumed_table, table_of
from dossim.exhaustion.words import as_dict, lines, plan_lines, share, size
from enforcer.model.conntrack import NOT_PROBED, ConntrackFacts, Timeout

TABLE = Table(262_144, 262_144)


def flood(count: int, seconds: float = 1.0, kind: FlowClass = FlowClass.UDP) -> NewFlows:
    return NewFlows(reached=count, beginning=count, flows={kind: count}, seconds=seconds)


@pytest.mark.parametrize(
    ("flows", "answer"),
    [
        (flood(12_000), Fills.YES),
        (flood(8_000), Fills.PERHAPS),
        (flood(2_900), Fills.NO),
        (flood(4_400, kind=FlowClass.SYN_RECV), Fills.YES),
        (flood(2_200, kind=FlowClass.SYN_SENT), Fills.YES),
        (flood(440, kind=FlowClass.GENERIC), Fills.YES),
        (flood(1_000_000, kind=FlowClass.CLOSED_PORT), Fills.NO),
    ],
)
def test_whether_it_fills(flows: NewFlows, answer: Fills) -> None:
    found = outlook(TABLE, flows).flood
    assert found is not None
    assert found.fills is answer


def test_the_sentence_of_a_flood() -> None:
    first, once, goes_on, *others = lines(outlook(TABLE, flood(37_841), per_s=12_000))
    assert first == "conntrack: 262,144 entries, 262,144 buckets; 37,841 new flows (37,841 UDP)"
    assert once == "  the capture once: at most 37,841 entries; the table does not fill"
    assert goes_on == (
        "  if it goes on: 12,000 new flows/s: full after 21.8 s; then less than 0.1 % of new flows dropped; "
        "each other one evicts an entry without a reply, which is 21.8 s old on average"
    )
    assert [text.split(":")[0] for text in others] == [
        "  with untracked Deny (XDP, raw)",
        "  with tracked Deny (filter INPUT)",
        "  with nf_conntrack_max 1,080,001",
        "  with nf_conntrack_buckets 1,048,576, same nf_conntrack_max",
    ]


def test_a_closed_port_leaves_no_entry() -> None:
    assert "  if it goes on: 5,000 new flows/s: no entry stays" in lines(
        outlook(TABLE, flood(5_000, kind=FlowClass.CLOSED_PORT))
    )


def test_a_capture_that_fills_a_small_table_by_itself() -> None:
    (_, once, *_) = lines(outlook(Table(2_048, 262_144), flood(12_000)))
    assert once.startswith("  the capture once: 9,952 flows meet a full table: ")


def test_without_a_rate_there_is_no_time() -> None:
    found = outlook(TABLE, flood(5, seconds=0.0))
    assert found.flood is None
    assert "  no rate: its packets have one time stamp; --rate gives one" in lines(found)
    assert outlook(TABLE, flood(5, seconds=0.0), per_s=100).flood is not None


def test_entries_that_are_there_take_room() -> None:
    half = replace(TABLE, count=131_072)
    found = outlook(half, flood(12_000)).flood
    assert found is not None
    assert found.full_after_s.low == pytest.approx(10.92, abs=0.01)
    assert found.at_full.dropped.high > found.at_full.dropped.low, "they may be assured"
    assert size(half) == "262,144 entries, 131,072 in use, 262,144 buckets"


def test_a_remedy_that_is_none_says_so() -> None:
    untracked, tracked, larger, buckets = remedies(TABLE, {30.0: 12_000.0})
    assert untracked.entries == tracked.entries == Interval(0, 0)
    assert larger.full_after_s == Interval(inf, inf)
    assert buckets.dropped.low > 0.01, "more buckets with the same limit drop more"


def test_the_rates_that_fill_a_default_table() -> None:
    rates = {item: round(rate) for item, rate in fill_rates(TABLE).items()}
    assert rates[FlowClass.UDP] == 8_738
    assert rates[FlowClass.SYN_RECV] == 4_369
    assert rates[FlowClass.SYN_SENT] == 2_185
    assert rates[FlowClass.GENERIC] == 437
    assert "8,738/s of UDP, 4,369/s of TCP SYN to an open port" in plan_lines(TABLE, None)[1]


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Interval(0, 0.0001), "less than 0.1 %"),
        (Interval(0.11, 0.132), "11.0-13.2 %"),
        (Interval(1, 1), "100.0 %"),
        (Interval(0.0001, 0.01), "0.0-1.0 %"),
    ],
)
def test_a_share(found: Interval, text: str) -> None:
    assert share(found) == text


# --- what was not read is never a default that nobody names ---------------------------------------------------------


def test_a_table_that_was_read_assumes_nothing() -> None:
    table = table_of(LINUX_DEFAULTS)
    assert isinstance(table, Table)
    assert table.assumed == ()


def test_without_a_host_the_defaults_are_named() -> None:
    assert lines(outlook(assumed_table(), flood(1)))[-1].startswith("  assumed: Linux's defaults")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (NOT_PROBED, "nf_conntrack_max and nf_conntrack_buckets could not be read on that host (not probed)"),
        (ConntrackFacts(max=5, unknown=("nf_conntrack_buckets: Permission denied",)), "Permission denied"),
        (ConntrackFacts(buckets=5), "nf_conntrack_max could not be read on that host (not in the facts)"),
    ],
)
def test_without_a_size_nothing_is_said(facts: ConntrackFacts, reason: str) -> None:
    why = table_of(facts)
    assert isinstance(why, str)
    assert reason in why
    assert lines(why) == plan_lines(why, None) == [f"conntrack: cannot tell whether the table fills: {why}"]
    assert as_dict(why) == {"unknown": why}


@pytest.mark.parametrize(
    ("facts", "assumed"),
    [
        (replace(LINUX_DEFAULTS, count=None), "an empty table: nf_conntrack_count was not read"),
        (replace(LINUX_DEFAULTS, tcp_loose=None), "tcp_loose 1: not read"),
        (replace(LINUX_DEFAULTS, helpers=None), "no helper adds entries"),
        (replace(LINUX_DEFAULTS, zones=None), "one zone"),
        (replace(LINUX_DEFAULTS, zones=(3, 7)), "each flow is in one zone, of those in use (3, 7)"),
        (replace(LINUX_DEFAULTS, helpers=("nf_conntrack_ftp",)), "nf_conntrack_ftp add no entries"),
        (
            replace(LINUX_DEFAULTS, timeouts={k: v for k, v in DEFAULT_TIMEOUTS.items() if k is not Timeout.UDP}),
            "udp_timeout 30 s: not read",
        ),
    ],
)
def test_what_is_assumed_is_named(facts: ConntrackFacts, assumed: str) -> None:
    table = table_of(facts)
    assert isinstance(table, Table)
    (text,) = table.assumed
    assert text.startswith(assumed)


def test_the_timeouts_of_the_host_count() -> None:
    table = table_of(replace(LINUX_DEFAULTS, timeouts={**DEFAULT_TIMEOUTS, Timeout.UDP: 10}, tcp_loose=False))
    assert isinstance(table, Table)
    assert not table.tcp_loose
    assert round(fill_rates(table)[FlowClass.UDP]) == 26_214


def test_a_limit_of_zero_is_none() -> None:
    table = table_of(replace(LINUX_DEFAULTS, max=0))
    assert isinstance(table, Table)
    assert size(table) == "no limit, 262,144 buckets"
    found = outlook(table, flood(10**6)).flood
    assert found is not None
    assert found.fills is Fills.NO


def test_json_has_no_infinity() -> None:
    data = as_dict(outlook(TABLE, flood(100)))
    assert data["flood"]["full_after_s"] == {"least": None, "most": None}
    assert data["flood"]["fills"] == "no"
    assert data["new_flows"] == {"UDP": 100}


def test_nothing_is_computed_from_more_flows_than_are_counted() -> None:
    many = NewFlows(reached=9_000_000, flows={FlowClass.UDP: 8_388_608}, seconds=1.0, is_more=True)
    said = outlook(assumed_table(), many, per_s=1_000.0)
    assert (said.alone, said.flood, said.remedies) == (None, None, ())
    text = lines(said)
    assert "more than 8,388,608 new flows (8,388,608 UDP)" in text[0]
    assert text[1].strip() == (
        "no rate: there are more than 8,388,608 new flows; if they come at once, they fill the table"
    )
    assert as_dict(said)["more_new_flows"] is True
    assert not as_dict(outlook(assumed_table(), flood(100)))["more_new_flows"]

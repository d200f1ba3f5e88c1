"""Connection tracking facts from files as /proc has them: read, or named as unknown; never a default."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.kernel.conntrack import read_conntrack
from enforcer.model.conntrack import ConntrackStatistics, Timeout

SETTINGS = {
    "max": "8192",
    "buckets": "2048",
    "count": "17",
    "checksum": "1",
    "tcp_loose": "0",
    "tcp_be_liberal": "1",
    **{str(item): str(30 + number) for number, item in enumerate(Timeout)},
}
COLUMNS = (
    "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error"
)
STATISTICS = (
    f"{COLUMNS}\n{'0000000a ' * 9}00000001 0000000f 00000010 00000000\n{'00000000 ' * 9}00000002 00000001 00000100 0\n"
)
ENTRIES = (
    "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 "
    "sport=2 dport=1 mark=0 zone=7 use=2\n"
    "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 zone-orig=3 [UNREPLIED] src=10.0.0.2 use=2\n"
)
MODULES = (
    "nf_conntrack_ftp 24576 0 - Live 0x0000000000000000\n"
    "nf_conntrack_netlink 57344 0 - Live 0x0\n"
    "nf_conntrack 188416 4 nf_conntrack_ftp,nf_nat - Live 0x0\n"
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    settings = tmp_path / "sys/net/netfilter"
    settings.mkdir(parents=True)
    for name, value in SETTINGS.items():
        (settings / f"nf_conntrack_{name}").write_text(value + "\n")
    statistics = tmp_path / "thread-self/net/stat"
    statistics.mkdir(parents=True)
    (statistics / "nf_conntrack").write_text(STATISTICS)
    (tmp_path / "thread-self/net/nf_conntrack").write_text(ENTRIES)
    (tmp_path / "modules").write_text(MODULES)
    return tmp_path


def test_everything_is_read(proc: Path) -> None:
    facts = read_conntrack(proc)
    assert (facts.max, facts.buckets, facts.count) == (8192, 2048, 17)
    assert (facts.checksum, facts.tcp_loose, facts.tcp_be_liberal) == (True, False, True)
    assert facts.timeouts == {item: 30 + number for number, item in enumerate(Timeout)}
    assert facts.helpers == ("nf_conntrack_ftp",), "netlink is no helper"
    assert facts.zones == (3, 7)
    assert facts.statistics == ConntrackStatistics(dropped=0x10, early_drop=0x110, insert_failed=3), "all CPUs, hex"
    assert facts.unknown == ()


def test_without_conntrack_one_sentence_says_so(tmp_path: Path) -> None:
    facts = read_conntrack(tmp_path)
    assert (facts.max, facts.timeouts, facts.helpers) == (None, {}, None)
    (why,) = facts.unknown
    assert "nf_conntrack is not loaded" in why


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("sys/net/netfilter/nf_conntrack_buckets", None, "nf_conntrack_buckets: No such file or directory"),
        ("sys/net/netfilter/nf_conntrack_buckets", "many", "nf_conntrack_buckets: expected a number, found 'many'"),
        ("sys/net/netfilter/nf_conntrack_max", "", "nf_conntrack_max: expected a number, found ''"),
        ("sys/net/netfilter/nf_conntrack_udp_timeout", None, "nf_conntrack_udp_timeout: No such file or directory"),
        ("thread-self/net/nf_conntrack", None, "zones (/proc/net/nf_conntrack): No such file or directory"),
        ("modules", None, "helpers (/proc/modules): No such file or directory"),
        ("modules", "veth 1 0 - Live 0x0\n", "helpers: nf_conntrack is built into this kernel, and helpers may be too"),
        ("thread-self/net/stat/nf_conntrack", "names\n1 2\n", "not the columns that were expected"),
    ],
)
def test_what_cannot_be_read_is_named_and_the_rest_is_read(
    proc: Path, file: str, content: str | None, named: str
) -> None:
    (proc / file).unlink()
    if content is not None:
        (proc / file).write_text(content)
    facts = read_conntrack(proc)
    (why,) = facts.unknown
    assert named in why
    udp = facts.timeouts.get(Timeout.UDP)
    assert [facts.max, facts.buckets, facts.helpers, facts.zones, facts.statistics, udp].count(None) == 1


def test_a_helper_free_kernel_has_none(proc: Path) -> None:
    (proc / "modules").write_text("nf_conntrack 188416 0 - Live 0x0\n")
    assert read_conntrack(proc).helpers == ()

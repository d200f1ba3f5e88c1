"""Where rules after conntrack drop, and whose they are: by the bits of the mark that only a Deny of ours sets.

The rules are written by hand, as iptables and nf_tables have them: a Deny of ours marks the packet, then drops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from ipaddress import ip_interface, ip_network

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from dossim.model.host import Host
from dossim.observe import Observations
from dossim.observe.evidence import DroppedBy
from enforcer.backends.netfilter.settings import accept_bit, drop_bit
from enforcer.policy.resources import FelixConfiguration
from tests.kernel.iptables_support import IPTABLES, run
from tests.kernel.observe_support import observe

pytestmark = pytest.mark.needs_root

ME = {4: "10.10.10.10", 6: "fd00::10"}
PEER = {4: "203.0.113.7", 6: "2001:db8::7"}
BEYOND = {4: "192.0.2.5", 6: "2001:db8:5::5"}
ROUTER = Host(
    node="jasper",
    addresses=(ip_interface(f"{ME[4]}/24"), ip_interface(f"{ME[6]}/64")),
    forward=True,
    routes=(ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/64")),
)
TOOLS = ("iptables", "nftables")
ETHER = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")

MASK = FelixConfiguration("default").iptables_mark_mask
ACCEPT, DENY = accept_bit(MASK), drop_bit(MASK)
KUBE = 0x4000  # kube-proxy's, outside the mask
OURS, OTHERS = DroppedBy
NFT_PLACES = {"nft_do_chain", "nf_hook_slow"}  # the second before the kernel had drop reasons of nf_tables


@dataclass(frozen=True)
class Rule:
    """One rule, which matches on the destination port, and what becomes of a packet for that port. ``refuse`` is a
    verdict of both tools. ``priority`` is nf_tables' own; with 0 there is no rule of iptables for that place.
    """

    table: str
    hook: str
    priority: int
    mark: int
    refuse: str
    column: str
    by: DroppedBy | None

    def iptables(self, port: int) -> list[tuple[str, ...]]:
        place = ("-t", self.table, "-A", self.hook.upper(), "-p", "udp", "--dport", str(port))
        mark = [(*place, "-j", "MARK", "--set-xmark", f"{self.mark:#x}/{self.mark:#x}")] if self.mark else []
        return [*mark, *([(*place, "-j", self.refuse.upper())] if self.refuse else [])]

    def nftables(self, port: int) -> str:
        mark = f"meta mark set meta mark | {self.mark:#x} " if self.mark else ""
        return f"udp dport {port} {mark}{self.refuse}"


RULES = {
    "preDNAT, ours": Rule("mangle", "prerouting", -150, DENY, "drop", "mangle", OURS),
    "preDNAT, of others": Rule("mangle", "prerouting", -150, 0, "drop", "mangle", OTHERS),
    "input, ours": Rule("filter", "input", 0, DENY, "drop", "filter-input", OURS),
    "input, ours with every bit": Rule("filter", "input", 0, DENY, "drop", "filter-input", OURS),
    "input, our Reject": Rule("filter", "input", 0, DENY, "reject", "filter-input", OURS),
    "input, of others": Rule("filter", "input", 0, 0, "drop", "filter-input", OTHERS),
    "input, a Reject of others": Rule("filter", "input", 0, 0, "reject", "filter-input", OTHERS),
    "input, of others with a mark of theirs": Rule("filter", "input", 0, KUBE, "drop", "filter-input", OTHERS),
    "input, of others after our Allow": Rule("filter", "input", 0, ACCEPT, "drop", "filter-input", OTHERS),
    "forward, ours": Rule("filter", "forward", 0, DENY, "drop", "filter-forward", OURS),
    "forward, of others": Rule("filter", "forward", 0, 0, "drop", "filter-forward", OTHERS),
    "marked and delivered": Rule("mangle", "prerouting", -150, KUBE, "", "delivered", None),
    "marked and forwarded": Rule("mangle", "forward", -150, KUBE, "", "forwarded", None),
}
PORTS = {sentence: 7000 + at for at, sentence in enumerate(RULES)}
ROWS = [(sentence, version) for version in (4, 6) for sentence in RULES]


def frame(sentence: str, version: int) -> bytes:
    to = BEYOND if RULES[sentence].hook == "forward" else ME
    head = IP(src=PEER[4], dst=to[4]) if version == 4 else IPv6(src=PEER[6], dst=to[6])
    return bytes(ETHER / head / UDP(sport=1, dport=PORTS[sentence]) / Raw(b"data"))


def with_iptables() -> None:
    for version in (4, 6):
        for sentence, rule in RULES.items():
            for words in rule.iptables(PORTS[sentence]):
                run(IPTABLES[version], "-w", *words)


def with_nftables() -> None:
    places = dict.fromkeys((rule.hook, rule.priority) for rule in RULES.values())
    chains = [
        f"chain {hook}{-priority} {{ type filter hook {hook} priority {priority}; policy accept\n"
        + "\n".join(
            rule.nftables(PORTS[sentence])
            for sentence, rule in RULES.items()
            if (rule.hook, rule.priority) == (hook, priority)
        )
        + "\n}"
        for hook, priority in places
    ]
    run("nft", "-f", "-", text="table inet test {\n" + "\n".join(chains) + "\n}\n")


@cache
def seen(tool: str) -> Observations:
    prepare = {"iptables": with_iptables, "nftables": with_nftables}[tool]
    return observe(ROUTER, [frame(*row) for row in ROWS], prepare=prepare)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}, IPv{row[1]}")
def test_where_it_ends_with_which_mark_and_by_whose_rule(tool: str, row: tuple[str, int]) -> None:
    observations, number, rule = seen(tool), ROWS.index(row), RULES[row[0]]
    evidence = observations.evidence(number)
    end = observations.disposition(number)
    assert end is not None, evidence
    assert (end.column, evidence.mark) == (rule.column, rule.mark), evidence
    assert observations.dropped_by(number, DENY) is rule.by, evidence


@pytest.mark.parametrize(("tool", "places"), [("iptables", {"nf_hook_slow"}), ("nftables", NFT_PLACES)], ids=TOOLS)
def test_the_place_where_it_is_freed_tells_the_tool_and_not_whose_rule_it_was(tool: str, places: set[str]) -> None:
    """A Reject is freed where a Drop is."""
    observations = seen(tool)
    dropped = [number for number, (sentence, _) in enumerate(ROWS) if RULES[sentence].by]
    ends = {observations.evidence(number).end.split(";")[0] for number in dropped}
    assert ends <= {f"kfree_skb in {place}, reason NETFILTER_DROP" for place in places}
    assert {observations.dropped_by(number, DENY) for number in dropped} == {OURS, OTHERS}


def test_a_hook_between_raw_and_conntrack_is_told_from_conntrack_by_its_counter() -> None:
    """The place is that of a packet for which the table is full; conntrack's own counter knows nothing of it."""
    chain = "chain early { type filter hook prerouting priority -250; policy accept; udp dport 7000 drop; };"
    frames = [frame("preDNAT, ours", 4), frame("preDNAT, of others", 4), frame("preDNAT, ours", 6)]
    observations = observe(
        ROUTER, frames, prepare=lambda: run("nft", "-f", "-", text=f"table inet test {{ {chain} }}\n")
    )
    assert [str(observations.disposition(number)).split(" (")[0] for number in range(3)] == [
        "dropped at conntrack",
        "delivered",
        "dropped at conntrack",
    ]
    evidence = observations.evidence(0)
    assert evidence.end.endswith("conntrack itself counted 0 of 2 drops: another hook drops there, too")
    assert evidence.state is None, "it did not get past conntrack"
    assert observations.dropped_by(0, DENY) is None

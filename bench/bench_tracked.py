"""What policy after conntrack costs a prediction: ``.venv/bin/python -m bench.bench_tracked``.

The capture of :mod:`bench.flood`, all in raw mode, with the deny list in untracked and in tracked policy. The
cases take turns, so that all of them meet the same load of the machine; the result is the best CPU time of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bench.bench_predict import PACKETS, RUNS
from bench.flood import HOST, U32, deny_list, kinds, listed, syn_flood
from dossim.model.disposition import Fate
from dossim.packet.capture import Capture
from dossim.predict import Prediction, Tables, predict
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.resources import DEFAULT_FAILSAFE_INBOUND
from enforcer.policy.ruletable import Entry, IpSet
from enforcer.policy.tracked import Hook, TierChain, TrackedChain, TrackedTable
from tests.support.entries import SideMatch, entry_of

_CUT = 40  # bytes: in its TCP header, after the ports


@dataclass(frozen=True)
class Case:
    """``ends``: the words under which the packets of the result may be counted."""

    capture: Capture
    work: Callable[[], Prediction]
    ends: frozenset[str]


def normal_policy(sources: U32, *entries: Entry) -> Tables:
    """Normal ingress policy of the interface: the entries, then a default Deny of their tier, or of the endpoint."""
    tiers = (TierChain("default", entries),) if entries else ()
    sets = {"s:deny": IpSet("s:deny", "deny", Nets(sources, np.full(len(sources), 32, np.uint8)))}
    chain = TrackedChain(Hook.INPUT, tiers, failsafes=DEFAULT_FAILSAFE_INBOUND, end=Action.DENY)
    return Tables(TrackedTable("eth0", "hep", (chain,), sets=sets))


def cases(capture: Capture, sources: U32) -> dict[str, Case]:
    raw = deny_list(sources, None)
    empty = replace(raw, table=replace(raw.table, ingress=()), entries=())
    deny = entry_of("gnp/tracked ingress[0]", Action.DENY, source=SideMatch(ip_set="s:deny"))
    allow = entry_of("gnp/tracked ingress[1]", Action.ALLOW)
    again = replace(capture, offset=capture.offset[np.arange(len(capture)) // 2])  # all have one length
    cut = replace(capture, length=np.minimum(capture.length, _CUT).astype(np.int32))

    def case(of: Capture, plan: InterfacePlan, tables: Tables | None, *ends: str) -> Case:
        return Case(of, lambda: predict(of, plan, HOST, tables), frozenset(ends))

    def modelled() -> Prediction:
        predict(capture, raw, HOST)
        return predict(capture, raw, HOST, normal_policy(sources))

    return {
        "untracked deny list": case(capture, raw, None, "raw", "delivered"),
        "the same, and Calico's end": Case(capture, modelled, frozenset({"raw", "filter-input"})),
        "tracked deny list, then Deny": case(capture, empty, normal_policy(sources, deny), "filter-input"),
        "tracked deny list, then Allow": case(
            capture, empty, normal_policy(sources, deny, allow), "filter-input", "delivered"
        ),
        "tracked Allow, each twice": case(again, empty, normal_policy(sources, allow), "delivered"),
        "the same, in two fragments": case(
            kinds(capture)["two fragments each"], empty, normal_policy(sources, allow), "delivered"
        ),
        "untracked deny list, cut": case(cut, raw, None, "raw", "undetermined"),
        "tracked Allow, cut": case(cut, empty, normal_policy(sources, allow), "undetermined"),
    }


def main() -> None:
    sources = listed()
    print(f"{PACKETS:,} SYNs, {len(sources):,} deny-listed sources, raw, best of {RUNS} runs in turn")
    found = cases(syn_flood(PACKETS, sources), sources)
    for name, case in found.items():
        found_ends = case.work()
        totals = found_ends.totals()
        if is_open := found_ends.count(Fate.UNDETERMINED):
            totals["undetermined"] = is_open
        assert set(totals) == case.ends, f"{name}: {totals}"
        assert sum(totals.values()) == len(case.capture), f"{name}: {totals}"
    seconds = dict.fromkeys(found, float("inf"))
    for _ in range(RUNS):
        for name, case in found.items():
            started = time.process_time()
            case.work()
            seconds[name] = min(seconds[name], (time.process_time() - started) / len(case.capture))
    untracked = seconds["untracked deny list"]
    for name, each in seconds.items():
        print(f"{name:<30} {1 / each / 1e6:6.3f} M packets/s   {each / untracked:6.1f} times the first")


if __name__ == "__main__":
    main()

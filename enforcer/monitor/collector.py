"""The metrics, as prometheus_client's families. docs/metrics.md describes each; a test compares the two.

It is imported by :mod:`enforcer.monitor.exposition` alone, because prometheus_client is an extra.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from os import uname

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import enforcer
from enforcer.agent.state import APPLY_BOUNDS_S, Histogram, View
from enforcer.datastore.report import EVENTS
from enforcer.emergency.expiry import ClockState
from enforcer.model.vocabulary import STAGE_OF_MODE, Action, Direction, Stage
from enforcer.monitor.bounded import Shown
from enforcer.monitor.counters import INTERFACES_MAX, CounterReader, Reading
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.resources import Resources

SETS_MAX = 500
STAGES = (*STAGE_OF_MODE.values(), Stage.NETDEV_INGRESS, Stage.RAW)
FALLBACKS = ("no-early-stage", "not-held", "not-deny", "egress")
KINDS = (
    *("GlobalNetworkPolicy", "GlobalNetworkSet", "NetworkSet", "HostEndpoint"),
    *("FelixConfiguration", "Tier", "Profile", "Node"),
)
FILE = "file"  # the kind of a fault of a whole file or key

Values = Mapping[tuple[str, ...], float]
Pairs = Mapping[tuple[str, ...], tuple[int, int]]  # packets, bytes


class AgentCollector(Collector):
    """Collects when it is asked: nothing is counted or kept for the sake of metrics in between."""

    def __init__(self, view: Callable[[], View], counters: CounterReader) -> None:
        self._view = view
        self._counters = counters
        self._interfaces, self._sets = Shown(INTERFACES_MAX), Shown(SETS_MAX)

    def collect(self) -> Iterator[Metric]:
        view = self._view()
        reading = self._counters.read(view.plan, passing=view.passing_for_s is not None)
        return chain(
            _counted(reading),
            self._planned(view),
            self._sets_of(view.resources),
            [_table_ranges(view)],
            _worked(view),
            _emergency(view),
            _datastore(view),
        )

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not collect."""
        return iter(())

    def _planned(self, view: View) -> Iterator[Metric]:
        plans = view.plan.interfaces if view.plan else ()
        self._interfaces.update({item.interface for item in plans})
        stage: Counter[tuple[str, ...]] = Counter()
        entries: Counter[tuple[str, ...]] = Counter()
        fallback: Counter[tuple[str, ...]] = Counter()
        for item in plans:
            name = self._interfaces.label(item.interface)
            for each in STAGES:
                stage[name, str(each)] += each in (item.early, Stage.RAW)
                entries[name, str(each)] += sum(planned.stage is each for planned in item.entries)
            for reason in FALLBACKS:
                fallback[name, reason] += 0
            for reason in _fallbacks(item):
                fallback[name, reason] += 1
        yield _gauge(
            "enforcer_interface_stage",
            "Interfaces (1; of 'other' their number) that enforce at this stage.",
            ("interface", "stage"),
            stage,
        )
        yield _gauge(
            "enforcer_interface_entries",
            "Entries that take effect at this stage first.",
            ("interface", "stage"),
            entries,
        )
        yield _gauge(
            "enforcer_interface_fallback_entries",
            "Entries that take effect in raw only, by reason.",
            ("interface", "reason"),
            fallback,
        )

    def _sets_of(self, resources: Resources) -> Iterator[Metric]:
        sizes = {item.name: len(item.nets) for item in resources.global_network_sets}
        sizes |= {f"{item.namespace}/{item.name}": len(item.nets) for item in resources.network_sets}
        self._sets.update(sizes.keys())
        shown: Counter[tuple[str, ...]] = Counter()
        for name, size in sizes.items():
            shown[self._sets.label(name),] += size
        yield _gauge("enforcer_set_cidrs", "CIDRs of a GlobalNetworkSet or NetworkSet.", ("set",), shown)


def _table_ranges(view: View) -> Metric:
    ranges: Values = {(f"ipv{version}",): view.ranges.get(version, 0) for version in (4, 6)}
    return _gauge("enforcer_table_ranges", "Ranges of addresses in the tables of XDP.", ("family",), ranges)


def _fallbacks(item: InterfacePlan) -> Iterator[str]:
    """Why entries take effect in raw only, one of ``FALLBACKS`` for each."""
    held = 0
    for planned in item.entries:
        if planned.entry.direction is Direction.EGRESS:
            yield "egress"
            continue
        held += 1
        if planned.stage is Stage.RAW:
            yield "no-early-stage" if item.early is None else "not-held" if held > item.held else "not-deny"


def _counted(reading: Reading) -> Iterator[Metric]:
    labels = ("interface", "stage", "policy")
    dropped: Pairs = {
        (key.interface, str(key.stage), key.policy): value
        for key, value in reading.totals.items()
        if key.action is Action.DENY
    }
    passed: Pairs = {
        (key.interface, str(key.stage), key.policy, str(key.action)): value
        for key, value in reading.totals.items()
        if key.action in (Action.ALLOW, Action.PASS)
    }
    yield _counter("enforcer_dropped_packets", "Packets dropped.", labels, _first(dropped))
    yield _counter("enforcer_dropped_bytes", "Bytes of packets dropped.", labels, _second(dropped))
    yield _counter(
        "enforcer_passed_packets",
        "Packets that an Allow or Pass entry let through at this stage.",
        (*labels, "action"),
        _first(passed),
    )
    if reading.entries:
        by_entry: Pairs = {
            (key.interface, str(key.stage), key.policy, key.entry, str(key.action)): value
            for key, value in reading.entries.items()
        }
        yield _counter(
            "enforcer_entry_packets",
            "Packets that an entry matched.",
            (*labels, "entry", "action"),
            _first(by_entry),
        )
    if reading.age_s is not None:
        yield _value("enforcer_counters_age_seconds", "Age of the packet counters.", reading.age_s)
    yield _counter("enforcer_counters_read_errors", "Failed reads of packet counters.", (), {(): reading.failures})


def _worked(view: View) -> Iterator[Metric]:
    yield _gauge("enforcer_policy_faults", "Objects with a fault.", ("kind", "outcome"), _fault_counts(view))
    yield _histogram("enforcer_apply_duration_seconds", "Duration of passes.", view.apply_s)
    yield _counter(
        "enforcer_applies",
        "Passes by result.",
        ("result",),
        {(result,): count for result, count in view.applies.items()},
    )
    if view.enforced_at_s is not None:
        yield _value(
            "enforcer_last_apply_success_timestamp_seconds", "When the last pass succeeded.", view.enforced_at_s
        )
    yield _value(
        "enforcer_out_of_date_seconds",
        "Age of the oldest change that is seen but not enforced; 0: all is enforced.",
        view.out_of_date_s,
    )
    yield _histogram("enforcer_propagation_seconds", "From a change seen to it enforced.", view.propagation_s)
    yield _counter(
        "enforcer_foreign_changes",
        "Things that other programs removed or changed.",
        ("part",),
        {(part,): count for part, count in view.losses.items()},
    )
    info = (enforcer.__version__, view.node, view.store.kind, uname().release)
    yield _gauge("enforcer_info", "Always 1.", ("version", "node", "datastore", "kernel"), {info: 1})


def _fault_counts(view: View) -> Values:
    found: Counter[tuple[str, ...]] = Counter()
    found.update({(kind, outcome): 0 for kind in (*KINDS, FILE) for outcome in ("kept", "left-out")})
    for outcome, names in (("kept", view.store.kept), ("left-out", view.store.left_out)):
        for name in names:
            kind = name.partition(" ")[0]
            found[kind if kind in KINDS else FILE, outcome] += 1
    return found


def _emergency(view: View) -> Iterator[Metric]:
    decision = view.emergency
    yield _value("enforcer_emergency_entries", "CIDRs of emergency acts that are enforced.", decision.cidrs)
    if decision.next_end_s is not None:
        yield _value("enforcer_emergency_next_expiry_timestamp_seconds", "When the next act ends.", decision.next_end_s)
    if decision.state is not None:
        yield _value(
            "enforcer_emergency_clock_trusted",
            "1: acts end by the wall clock; 0: it is not synchronized or behind, so they may end later.",
            decision.state is ClockState.TRUSTED,
        )


def _datastore(view: View) -> Iterator[Metric]:
    store, counts = view.store, view.counts
    yield _value("enforcer_datastore_connected", "1: the datastore can be read.", store.connected)
    if store.contact:
        yield _value("enforcer_datastore_last_contact_timestamp_seconds", "When it was last heard of.", store.contact)
    if store.revision.isdecimal():  # etcd's: others are opaque
        yield _value("enforcer_datastore_revision", "The revision that was read last.", int(store.revision))
    yield _counter(
        "enforcer_datastore_events",
        "Events of watches.",
        ("kind", "type"),
        {key: count for key, count in counts.events.items() if key[1] in EVENTS},
    )
    yield _counter("enforcer_datastore_resyncs", "Complete lists.", ("reason",), _by_reason(counts.resyncs))
    yield _counter("enforcer_datastore_errors", "Failed requests.", ("reason",), _by_reason(counts.errors))


def _by_reason(counts: Mapping[str, int]) -> Values:
    return {(reason,): count for reason, count in counts.items()}


def _first(values: Pairs) -> Values:
    return {key: packets for key, (packets, _) in values.items()}


def _second(values: Pairs) -> Values:
    return {key: size for key, (_, size) in values.items()}


def _gauge(name: str, help_text: str, labels: Sequence[str], values: Values) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _value(name: str, help_text: str, value: float) -> Metric:
    return _gauge(name, help_text, (), {(): value})


def _counter(name: str, help_text: str, labels: Sequence[str], values: Values) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, help_text: str, values: Histogram) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=())
    buckets, below = [], 0
    for bound, count in zip((*map(str, APPLY_BOUNDS_S), "+Inf"), values.counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    family.add_metric((), buckets, values.total_s)
    return family

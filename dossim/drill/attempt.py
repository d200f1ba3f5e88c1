"""One replay of a capture against the real enforcer: lab, enforcer, replay, observation. Needs root."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from dossim.drill.load import Stall, Waiting
from dossim.drill.results import Stopwatch
from dossim.drill.situation import Situation, outside_plan
from dossim.lab import Lab
from dossim.observe import Observer, open_packets
from dossim.observe.journey import Journeys
from dossim.packet.capture import Capture
from dossim.replay import ScapySender, new_tag
from enforcer.enforcement.apply import Enforcer
from enforcer.model.choices import TrackedChoice
from enforcer.model.conntrack import ConntrackFacts
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import InterfacePlan

Progress = Callable[[str, int, int], None]

_POLL_S = 0.01
_NAP_S = 0.1
_AWAKE_S = 0.3  # before a timer may fire: a sleeping thread of a busy machine wakes up late
_QUIET_S = 2.0  # after this long without an event, packets that have not ended never will
_TIMER_SLACK_S = 10.0  # how late the kernel's fragment timers may fire when the machine is busy or was paused


@dataclass(frozen=True)
class Attempt:
    """The result of one replay. ``counters`` are drops per entry; ``conntrack`` has what conntrack
    itself dropped; ``waiting`` is how busy the machine was meanwhile.
    """

    plan: InterfacePlan
    journeys: Journeys
    unsent: Mapping[int, str]
    counters: Mapping[str, int]
    tracked: int
    conntrack: ConntrackFacts
    waiting: Waiting


def replay_once(
    capture: Capture,
    situation: Situation,
    fragments: Mapping[int, Hashable],
    fragment_timeout_s: int,
    watch: Stopwatch,
    report: Progress,
) -> Attempt:
    """Send all frames of the capture, and wait until each has ended; leaves nothing behind, even when it raises."""
    host, tag = situation.host, new_tag()
    frames = [capture.frame(number) for number in range(len(capture))]
    lab = Lab(host, mtu=max(map(len, frames), default=0), fragment_timeout_s=fragment_timeout_s)
    with watch.phase("lab"):
        lab.__enter__()
    try:
        with Observer(len(frames), tag=tag) as observer:
            enforcer = Enforcer(
                host.node,
                pin_root=lab.pin_root,
                choice=situation.choice,
                interfaces=interfaces_of(situation),
                raw=situation.raw,
                tracked=situation.tracked,
                netdev=situation.netdev,
            )
            with watch.phase("enforce"), lab.victim():
                plan = outside_plan(enforcer.apply(situation.resources).plan, situation)
            with watch.phase("observe"), lab.victim():
                observer.attach()
            lab.quiet_offloads()
            with _on_one_cpu():
                stall = Stall()
                with watch.phase("replay"), lab.peer():
                    sender = ScapySender(tag=tag, seen=observer.seen)
                    unsent = sender.send(frames, progress=lambda done: _after_batch(lab, report, done, len(frames)))
                with watch.phase("observe"):
                    longest_s = fragment_timeout_s + _TIMER_SLACK_S if fragments else _QUIET_S
                    first_s = _first_timer_s(observer.journeys, fragments, fragment_timeout_s)
                    _settle(
                        lambda: len(open_packets(observer.journeys, fragments)) - len(unsent), lab, longest_s, first_s
                    )
                waiting = stall.so_far()
            with watch.phase("enforce"), lab.victim():
                counters = _drops(enforcer)
                tracked, conntrack = lab.conntrack_entries(), lab.conntrack()
                enforcer.detach()
    finally:
        with watch.phase("lab"):
            lab.__exit__(None, None, None)
    return Attempt(plan, observer.journeys, unsent, counters, tracked, conntrack, waiting)


def interfaces_of(situation: Situation) -> list[str]:
    """The interfaces that are enforced: policy after conntrack asks that of the interface a packet leaves by."""
    host = situation.host
    return [host.interface] if situation.tracked is TrackedChoice.MODEL else [host.interface, host.inside]


def _after_batch(lab: Lab, report: Progress, done: int, total: int) -> None:
    lab.drain()
    report("replay", done, total)


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    """The calling thread stays on one CPU; drills of several processes take different ones. Fragment timers run where
    their fragments came in, so they interrupt this thread while it waits, and no other (docs/kernel-notes.md: events
    that no tracing program sees).
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _first_timer_s(journeys: Journeys, fragments: Mapping[int, Hashable], timeout_s: int) -> float:
    """When the kernel may give up the first fragment, by the monotonic clock; 0 if none was queued."""
    arrived_ns = journeys["pre_defrag_ns"][list(fragments)]
    queued_ns = arrived_ns[arrived_ns > 0]
    return int(queued_ns.min()) / 1e9 + timeout_s if queued_ns.size else 0.0


def _settle(count_open: Callable[[], int], lab: Lab, longest_s: float, first_timer_s: float) -> None:
    """Poll until every packet has ended, or nothing has ended for ``longest_s`` (queued fragments need their timeout).

    Asleep while no fragment's timer can fire, and then awake, so that the timers interrupt this thread. Time is counted
    in polls of at most ``_POLL_S``, not by the clock: while the machine was paused, no packet could end. Only a packet
    that never ends makes a drill wait this long, so a long timeout costs nothing otherwise.
    """
    left = count_open()
    while left > 0 and time.monotonic() < first_timer_s - _AWAKE_S:
        lab.drain()
        time.sleep(_NAP_S)
        left = count_open()
    quiet_s, before = 0.0, time.monotonic()
    while left > 0 and quiet_s < longest_s:
        lab.drain()
        now, before, passed_s = count_open(), time.monotonic(), min(time.monotonic() - before, _POLL_S)
        left, quiet_s = (now, 0.0) if now != left else (left, quiet_s + passed_s)


def _drops(enforcer: Enforcer) -> dict[str, int]:
    """Received packets per entry, summed over all stages: raw never sees what XDP drops."""
    packets: dict[str, int] = {}
    for count in enforcer.counters():
        if count.stage is not Stage.EGRESS:  # of what the host sends
            packets[count.entry] = packets.get(count.entry, 0) + count.packets
    return packets

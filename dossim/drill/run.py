"""predict_capture and drill_capture. A prediction imports nothing that needs root, libbpf or netlink."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dossim.drill.results import DrillResult, PredictResult, Stopwatch
from dossim.drill.situation import Situation, lab_facts, outside_plan, plan_for
from dossim.packet.capture import Capture
from dossim.packet.fragments import datagram_keys, widest_datagram
from dossim.packet.summary import summary
from dossim.predict import predict
from enforcer.facts import HostFacts

if TYPE_CHECKING:
    from dossim.lab import Lab
    from enforcer.apply import Enforcer

Progress = Callable[[str, int, int], None]

_POLL_S = 0.01
_QUIET_S = 2.0  # without news for this long, what has not ended is not going to
_TIMER_SLACK_S = 10.0  # how late the kernel's fragment timers may fire when the machine is busy or was paused
_FRAGMENT_TIMEOUT_S = 2  # outlasts a stall of a busy machine between two fragments
_SLOWEST_REPLAY_PPS = 1000  # fragment timeouts allow for a replay as slow as this


def predict_capture(capture: Capture, situation: Situation, *, facts: HostFacts | None = None) -> PredictResult:
    """Where each packet would end. ``facts`` of the real host, if known; else those of the lab's veth."""
    watch = Stopwatch()
    with watch.phase("predict"):
        plan = plan_for(situation, facts or lab_facts(situation.host))
        prediction = predict(capture, plan, situation.host)
    return PredictResult(capture, situation, plan, prediction, watch.seconds)


def drill_capture(capture: Capture, situation: Situation, *, progress: Progress | None = None) -> DrillResult:
    """Replay a capture against the real enforcer and verify every packet; leaves nothing behind, even when it raises.

    Raises PrivilegeError without root, HostError when this kernel cannot observe or enforce, UnsupportedRuleError for a
    rule that cannot be enforced. ``progress`` is told (phase, done, total).
    """
    from dossim.lab import Lab
    from dossim.observe import Observer, judge, open_packets
    from dossim.replay import ScapySender, new_tag
    from dossim.verify import verify
    from enforcer.apply import Enforcer

    host, watch, tag = situation.host, Stopwatch(), new_tag()
    report = progress or (lambda phase, done, total: None)
    frames = [capture.frame(number) for number in range(len(capture))]
    fragments = datagram_keys(capture)
    fragment_timeout_s = _FRAGMENT_TIMEOUT_S + widest_datagram(fragments) // _SLOWEST_REPLAY_PPS
    lab = Lab(host, mtu=max(map(len, frames), default=0), fragment_timeout_s=fragment_timeout_s)
    with watch.phase("lab"):
        lab.__enter__()
    try:
        with Observer(len(frames), tag=tag) as observer:
            enforcer = Enforcer(
                host.node,
                pin_root=lab.pin_root,
                choice=situation.choice,
                interfaces=[host.interface],
                raw=situation.raw,
                netdev=situation.netdev,
            )
            with watch.phase("enforce"), lab.victim():
                plan = outside_plan(enforcer.apply(situation.resources).plan, host)
            with watch.phase("observe"), lab.victim():
                observer.attach()
            lab.quiet_offloads()
            with watch.phase("predict"):
                prediction = predict(capture, plan, host)
            with _one_processor():
                with watch.phase("replay"), lab.peer():
                    sender = ScapySender(tag=tag, seen=observer.seen)
                    unsent = sender.send(frames, progress=lambda done: _after_batch(lab, report, done, len(frames)))
                with watch.phase("observe"):
                    longest_s = fragment_timeout_s + _TIMER_SLACK_S if fragments else _QUIET_S
                    _settle(lambda: len(open_packets(observer.journeys, fragments)), lab, longest_s)
            with watch.phase("enforce"), lab.victim():
                counters = _drops(enforcer)
                tracked = lab.conntrack_entries()
                enforcer.detach()
    finally:
        with watch.phase("lab"):
            lab.__exit__(None, None, None)
    with watch.phase("verify"):
        observations = judge(observer.journeys, fragments, unsent)
        verification = verify(
            prediction,
            observations,
            entries=plan.table.ingress,
            counters=counters,
            summary=lambda number: summary(frames[number]),
        )
    return DrillResult(
        capture=capture,
        situation=situation,
        plan=plan,
        prediction=prediction,
        timings_s=watch.seconds,
        verification=verification,
        observations=observations,
        conntrack_entries=tracked,
        kernel=os.uname().release,
        driver="veth",
    )


def _after_batch(lab: Lab, report: Progress, done: int, total: int) -> None:
    lab.drain()
    report("replay", done, total)


@contextmanager
def _one_processor() -> Iterator[None]:
    """The calling thread stays on one processor; drills of several processes take different ones. Fragment timers run
    where their fragments came in, so they interrupt this thread while it waits, and no other (docs/kernel-notes.md:
    events that no tracing program sees).
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _settle(count_open: Callable[[], int], lab: Lab, longest_s: float) -> None:
    """Wait, awake, until every packet has ended, or nothing has ended for ``longest_s`` (queued fragments need their
    timeout).

    Time is counted in polls of at most ``_POLL_S``, not by the clock: a machine that was paused has not had the time to
    end anything. Only a packet that never ends makes a drill wait this long, so patience costs nothing where all is
    well.
    """
    left, quiet_s, before = count_open(), 0.0, time.monotonic()
    while left and quiet_s < longest_s:
        lab.drain()
        now, before, passed_s = count_open(), time.monotonic(), min(time.monotonic() - before, _POLL_S)
        left, quiet_s = (now, 0.0) if now != left else (left, quiet_s + passed_s)


def _drops(enforcer: Enforcer) -> dict[str, int]:
    """Packets per entry, over all stages: what XDP drops raw never sees."""
    packets: dict[str, int] = {}
    for count in enforcer.counters():
        packets[count.entry] = packets.get(count.entry, 0) + count.packets
    return packets

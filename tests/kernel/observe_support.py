"""Packets through a lab with rules of the test's own, and what the observer says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dossim.lab import Lab
from dossim.model.host import Host
from dossim.observe import Observations, Observer, judge, open_packets
from dossim.replay import ScapySender, new_tag

DEADLINE_S = 60.0


def observe(
    host: Host,
    frames: Sequence[bytes],
    *,
    prepare: Callable[[], object] = lambda: None,
    afterwards: Callable[[], object] = lambda: None,
) -> Observations:
    """Send the frames in order, none of them a fragment. ``prepare`` and ``afterwards`` run in the victim's namespace,
    before the first packet and after the last has ended.
    """
    tag = new_tag()
    with Lab(host) as lab, Observer(len(frames), tag=tag) as observer:
        with lab.victim():
            prepare()
            observer.attach()
        lab.quiet_offloads()
        with lab.peer():
            unsent = ScapySender(tag=tag, seen=observer.seen).send(frames)
        deadline = time.monotonic() + DEADLINE_S
        while len(open_packets(observer.journeys, {})):
            assert time.monotonic() < deadline, "packets that do not end"
            lab.drain()
        with lab.victim():
            afterwards()
        drops = lab.conntrack().dropped
    return judge(observer.journeys, {}, unsent, drops)

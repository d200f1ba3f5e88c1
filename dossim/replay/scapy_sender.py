"""Sends every packet of a capture through Scapy's socket; the Ethernet source address carries the packet's number.

Only layer 2 is rewritten: the source becomes ``tag:number`` (3 bytes each), a unicast destination becomes the victim's
address; a group address stays, because the host treats such packets differently. Everything after is sent as captured.

Sending is a closed loop: after each batch the sender waits until the kernel has reported its last packet, so that no
queue on the way can overflow and drop what the policy would not have.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from scapy.arch.linux import L2Socket

from dossim.lab.lab import VICTIM_MAC, WIRE
from enforcer.model.errors import HostError

ETHER_HEADER, _ADDRESS = 14, 6
BATCH = 64
# After this long without an event the observer or the link does not work. Counted in polls of at most _POLL_S, not by
# the clock: while other processes have the CPU nothing can be reported.
_PATIENCE_S = 2.0
_POLL_S = 0.002

MOST_PACKETS = 1 << 24  # that have a number in the address

Progress = Callable[[int], None]


# The observer sees the whole machine, so concurrent drills need different tags, even if random is seeded.
_RANDOM = random.SystemRandom()


def new_tag() -> int:
    """Three bytes that mark one drill's packets: locally administered unicast, unlike any address of the lab. Of two
    drills at a time that had the same, each would see the other's packets: one of four million pairs.
    """
    first = _RANDOM.choice([byte for byte in range(0x02, 0x100, 4) if byte != 0x06])
    return first << 16 | _RANDOM.randrange(0x10000)


class ScapySender:
    """Sends frames from the thread's namespace. ``tag``: from :func:`new_tag`. ``seen(i)`` queries the observer."""

    def __init__(self, *, tag: int, seen: Callable[[int], bool], interface: str = WIRE) -> None:
        self._tag = tag
        self._victim = bytes.fromhex(VICTIM_MAC.replace(":", ""))
        self._seen = seen
        self._interface = interface

    def send(self, frames: Sequence[bytes], *, progress: Progress = lambda done: None) -> Mapping[int, str]:
        """Send all; returns the reason for each frame that could not be sent. HostError when the link stops taking
        packets.
        """
        unsent: dict[int, str] = {}
        # Protocol 0 receives nothing: the victim's replies would only fill the socket's buffer.
        sock = L2Socket(iface=self._interface, type=0, promisc=False, nofilter=1)
        try:
            with _one_cpu():
                for start in range(0, len(frames), BATCH):
                    stop = min(start + BATCH, len(frames))
                    sent = self._send_batch(sock, frames, range(start, stop), unsent)
                    if sent:
                        self._await(sent)
                    progress(stop)
        finally:
            sock.close()
        return unsent

    def _send_batch(self, sock: L2Socket, frames: Sequence[bytes], numbers: range, unsent: dict[int, str]) -> list[int]:
        sent = []
        for number in numbers:
            frame = frames[number]
            if len(frame) < ETHER_HEADER:
                unsent[number] = f"a frame of {len(frame)} bytes is shorter than an Ethernet header ({ETHER_HEADER})"
                continue
            try:
                sock.send(self.build(number, frame))
                sent.append(number)
            except OSError as error:
                unsent[number] = f"the link refused the frame: {error.strerror}"
        return sent

    def build(self, number: int, frame: bytes) -> bytes:
        """The frame as it goes onto the wire: bytes, because building it of Scapy's layers costs ten times as much as
        the kernel needs for it.
        """
        destination = frame[:_ADDRESS] if frame[0] & 1 else self._victim
        return destination + (self._tag << 24 | number).to_bytes(_ADDRESS, "big") + frame[2 * _ADDRESS :]

    def _await(self, sent: Sequence[int]) -> None:
        """Wait until the kernel has reported the last packet of a batch; the next batch must not queue up after an
        unreported one.

        If only the last packet of a batch is lost, sending continues and verification reports it.
        """
        waited_s, before = 0.0, time.monotonic()
        while not self._seen(sent[-1]):
            if waited_s > _PATIENCE_S:
                if any(self._seen(number) for number in sent):
                    return
                raise HostError(
                    f"packets {sent[0]} to {sent[-1]} were sent on {self._interface} and the kernel reported nothing "
                    f"of them within {_PATIENCE_S:g} s of waiting; the observer or the link is not working"
                )
            time.sleep(0)
            now = time.monotonic()
            waited_s, before = waited_s + min(now - before, _POLL_S), now


@contextmanager
def _one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU: packets are received on the CPU that sent them, and their order must hold."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)

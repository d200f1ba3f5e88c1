"""Reconciling one interface: what is there, what is wanted, the smallest step between, done without a gap.

*In place* when only CIDRs or failsafe ports differ: adding and changing before removing, so that what stays listed is
dropped throughout. *Swap* when the entries or the program differ: a new generation is filled beside the old and the
link is pointed at it. *Attach* when nothing of ours is live. *Move* to another mode has a gap, as the kernel has no
two modes at once; raw has every entry and covers it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enforcer.backends.xdp import generation
from enforcer.backends.xdp.generation import program_digest
from enforcer.backends.xdp.layout import PROGRAM, Pins
from enforcer.backends.xdp.manifest import Manifest
from enforcer.backends.xdp.read import Installed, read_installed
from enforcer.backends.xdp.render import MapContent, XdpTable
from enforcer.errors import KernelError, PrivilegeError
from enforcer.kernel.bpf import Link, attach_xdp, open_pinned, program_name
from enforcer.kernel.maps import Map
from enforcer.kernel.netlink import InterfaceState
from enforcer.kernel.xdp import why_refused
from enforcer.words import Mode


class Refused(Exception):
    """The interface cannot have what is wanted; the sentence says why. An answer for ApplyResult, not an error."""


@dataclass(frozen=True)
class Wanted:
    """What one interface shall have."""

    state: InterfaceState
    mode: Mode
    table: XdpTable
    manifest: Manifest

    @property
    def size(self) -> str:
        prefixes = len(self.table.deny4) + len(self.table.deny6)
        return f"{_many(len(self.table.entries), 'entry', 'entries')}, {_many(prefixes, 'CIDR', 'CIDRs')}"


@dataclass(frozen=True)
class Difference:
    """What to do to a pinned map so that it holds the wanted content."""

    name: str
    put: tuple[tuple[bytes, bytes], ...] = ()
    removed: tuple[bytes, ...] = ()
    changed: int = 0  # how many of ``put`` replace a value


def wanted_for(state: InterfaceState, mode: Mode, table: XdpTable, *, namespace: int) -> Wanted:
    """The desired state of an interface, as values."""
    manifest = Manifest(
        interface=state.name,
        namespace=namespace,
        mode=mode,
        program=program_digest(),
        pass_tagged=state.has_vlans,
        entries=table.entries,
    )
    return Wanted(state, mode, table, manifest)


def reconcile(pins: Pins, wanted: Wanted, *, dry_run: bool) -> list[str]:
    """Make the interface enforce what is wanted; sentences for what was (or would be) changed. Raises Refused."""
    with _kernel_refusals():
        if not dry_run:
            generation.settle(pins)
        installed = read_installed(pins)
        _respect_others(installed, wanted)
        if installed is None or not _is_live(installed, wanted.state):
            return _attach(pins, wanted, dry_run=dry_run)
        if installed.mode is not wanted.mode:
            return _move(pins, installed, wanted, dry_run=dry_run)
        if _same_shape(pins, installed, wanted):
            return _update_in_place(pins, wanted, dry_run=dry_run)
        return _swap(pins, wanted, dry_run=dry_run)


def difference(name: str, actual: dict[bytes, bytes], content: MapContent) -> Difference:
    """The smallest change from what a map holds to what it should. Pure."""
    put: list[tuple[bytes, bytes]] = []
    changed = 0
    left = dict(actual)
    for key, value in content.items():
        present = left.pop(key, None)
        if present != value:
            put.append((key, value))
            changed += present is not None
    return Difference(name, tuple(put), tuple(left), changed)


@contextmanager
def _kernel_refusals() -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PrivilegeError(f"XDP needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run as root ({error})") from error
        raise Refused(str(error)) from error


def _respect_others(installed: Installed | None, wanted: Wanted) -> None:
    """Refuse when a program that we did not attach is there, or the pins belong to a living interface elsewhere."""
    if installed and installed.is_attached and installed.manifest.namespace != wanted.manifest.namespace:
        raise Refused(
            f"the pins of {wanted.state.name} belong to an enforcer in another network namespace; "
            "give each namespace a pin root of its own"
        )
    ours = installed.link.prog_id if installed and installed.link else 0
    for item in wanted.state.xdp:
        if item.prog_id != ours:
            which = f"id {item.prog_id} ({program_name(item.prog_id) or 'no name'})"
            raise Refused(f"{wanted.state.name} has a foreign XDP program, {which}, in {item.mode} mode; it stays")


def _is_live(installed: Installed, state: InterfaceState) -> bool:
    """Whether the pinned link holds its program to this very interface (one made anew has another index)."""
    link = installed.link
    return link is not None and link.ifindex == state.index and any(item.prog_id == link.prog_id for item in state.xdp)


def _same_shape(pins: Pins, installed: Installed, wanted: Wanted) -> bool:
    """Whether the maps' contents are all that may differ."""
    now, then = installed.manifest, wanted.manifest
    if installed.link is None or installed.link.prog_id != installed.prog_id:
        return False  # somebody pointed our link at another program
    if (now.entries, now.program, now.pass_tagged) != (then.entries, then.program, then.pass_tagged):
        return False
    return all(
        _room(pins, name) >= len(content)
        for name, content in (("deny4", wanted.table.deny4), ("deny6", wanted.table.deny6))
    )


def _room(pins: Pins, name: str) -> int:
    try:
        with Map.open_pinned(pins.directory / name) as pinned:
            return pinned.max_entries
    except FileNotFoundError:
        return -1


def _attach(pins: Pins, wanted: Wanted, *, dry_run: bool) -> list[str]:
    sentence = f"{wanted.state.name}: attached in {wanted.mode} mode ({wanted.size})"
    if not dry_run:
        generation.build(pins, wanted.table, wanted.manifest, wanted.state.index)
        generation.remove_link(pins)  # to an interface that is gone
        try:
            _hold(pins, pins.next / PROGRAM, wanted.mode, wanted.state)
        except BaseException:
            generation.remove(pins)
            raise
        generation.finish(pins)
    return [sentence]


def _swap(pins: Pins, wanted: Wanted, *, dry_run: bool) -> list[str]:
    if not dry_run:
        generation.build(pins, wanted.table, wanted.manifest, wanted.state.index)
        fd = open_pinned(pins.next / PROGRAM)
        try:
            with Link.open_pinned(pins.link) as link:
                link.update(fd)
        except BaseException:
            generation.discard_next(pins)
            raise
        finally:
            os.close(fd)
        generation.finish(pins)
    return [f"{wanted.state.name}: policy replaced ({wanted.size})"]


def _move(pins: Pins, installed: Installed, wanted: Wanted, *, dry_run: bool) -> list[str]:
    if not dry_run:
        generation.build(pins, wanted.table, wanted.manifest, wanted.state.index)
        generation.remove_link(pins)
        try:
            _hold(pins, pins.next / PROGRAM, wanted.mode, wanted.state)
        except BaseException:
            generation.discard_next(pins)
            _hold(pins, pins.directory / PROGRAM, installed.mode, wanted.state)  # as it was
            raise
        generation.finish(pins)
    return [f"{wanted.state.name}: moved from {installed.mode} to {wanted.mode} mode ({wanted.size})"]


def _hold(pins: Pins, program: Path, mode: Mode, state: InterfaceState) -> None:
    """Attach a pinned program and pin the link. Until it is pinned, a crash detaches it again."""
    fd = open_pinned(program)
    try:
        with attach_xdp(fd, state.index, mode) as link:
            link.pin(pins.link)
    except KernelError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise
        raise Refused(why_refused(mode, error, mtu=state.mtu)) from error
    finally:
        os.close(fd)


def _update_in_place(pins: Pins, wanted: Wanted, *, dry_run: bool) -> list[str]:
    table = wanted.table
    contents = {"deny4": table.deny4, "deny6": table.deny6, "failsafe": table.failsafe}
    changes = [_difference_of(pins, name, content) for name, content in contents.items()]
    if not dry_run:
        for change in changes:
            _execute(pins, change)
    return [f"{wanted.state.name}: {sentence}" for sentence in _sentences(changes)]


def _difference_of(pins: Pins, name: str, content: MapContent) -> Difference:
    with Map.open_pinned(pins.directory / name) as pinned:
        return difference(name, dict(pinned.items()), content)


def _execute(pins: Pins, change: Difference) -> None:
    """Put before removing: a packet that both lists hold finds an element at every moment."""
    with Map.open_pinned(pins.directory / change.name) as pinned:
        keys, values = (b"".join(part) for part in zip(*change.put, strict=True)) if change.put else (b"", b"")
        pinned.update_batch(keys, values, len(change.put))
        pinned.delete_batch(b"".join(change.removed), len(change.removed))


def _sentences(changes: list[Difference]) -> Iterator[str]:
    words = {"deny4": "IPv4 deny list", "deny6": "IPv6 deny list", "failsafe": "failsafe ports"}
    for change in changes:
        parts = [
            f"{count} {verb}"
            for count, verb in (
                (len(change.put) - change.changed, "added"),
                (change.changed, "changed"),
                (len(change.removed), "removed"),
            )
            if count
        ]
        if parts:
            yield f"{words[change.name]}: {', '.join(parts)}"


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"

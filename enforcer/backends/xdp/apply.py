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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enforcer.backends.xdp import generation
from enforcer.backends.xdp.generation import program_digest
from enforcer.backends.xdp.layout import PROGRAM, Pins
from enforcer.backends.xdp.manifest import Manifest
from enforcer.backends.xdp.read import Installed, link_info, read_installed
from enforcer.backends.xdp.render import MapContent, XdpTable
from enforcer.errors import KernelError, PrivilegeError
from enforcer.kernel.bpf import Link, LinkInfo, attach_xdp, open_pinned, program_name
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

    @property
    def added(self) -> int:
        return len(self.put) - self.changed


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
        installed, link = read_installed(pins), link_info(pins.link)
        _respect_others(installed, link, wanted)
        mode = _live_mode(link, wanted.state)
        if mode is None:
            return _attach(pins, wanted, dry_run=dry_run)
        if mode is not wanted.mode:
            return _move(pins, mode, wanted, dry_run=dry_run)
        changes = _changes_in_place(pins, wanted) if installed and _same_shape(installed, wanted) else None
        if changes is None:
            return _swap(pins, wanted, dry_run=dry_run)
        return _change_in_place(pins, wanted, changes, dry_run=dry_run)


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


def _respect_others(installed: Installed | None, link: LinkInfo | None, wanted: Wanted) -> None:
    """Refuse when a program that we did not attach is there, or the pins belong to a living interface elsewhere."""
    if installed and installed.is_attached and installed.manifest.namespace != wanted.manifest.namespace:
        raise Refused(
            f"the pins of {wanted.state.name} belong to an enforcer in another network namespace; "
            "give each namespace a pin root of its own"
        )
    for item in wanted.state.xdp:
        if link is None or item.prog_id != link.prog_id:
            which = f"id {item.prog_id} ({program_name(item.prog_id) or 'no name'})"
            raise Refused(f"{wanted.state.name} has a foreign XDP program, {which}, in {item.mode} mode; it stays")


def _live_mode(link: LinkInfo | None, state: InterfaceState) -> Mode | None:
    """How the pinned link holds its program to this very interface, which one made anew is not; None: not at all."""
    if link is None or link.ifindex != state.index:
        return None
    return next((item.mode for item in state.xdp if item.prog_id == link.prog_id), None)


def _same_shape(installed: Installed, wanted: Wanted) -> bool:
    """Whether the maps' contents are all that may differ."""
    now, then = installed.manifest, wanted.manifest
    if installed.link is None or installed.link.prog_id != installed.prog_id:
        return False  # somebody pointed our link at another program
    return (now.entries, now.program, now.pass_tagged) == (then.entries, then.program, then.pass_tagged)


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


def _move(pins: Pins, old: Mode, wanted: Wanted, *, dry_run: bool) -> list[str]:
    if not dry_run:
        generation.build(pins, wanted.table, wanted.manifest, wanted.state.index)
        generation.remove_link(pins)
        try:
            _hold(pins, pins.next / PROGRAM, wanted.mode, wanted.state)
        except BaseException:
            generation.discard_next(pins)
            with suppress(FileNotFoundError):  # its pin was lost
                _hold(pins, pins.directory / PROGRAM, old, wanted.state)  # as it was
            raise
        generation.finish(pins)
    return [f"{wanted.state.name}: moved from {old} to {wanted.mode} mode ({wanted.size})"]


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


def _changes_in_place(pins: Pins, wanted: Wanted) -> list[Difference] | None:
    """What to change in the pinned maps; None when one is lost, or has no room for the new beside the old."""
    table = wanted.table
    contents = {"deny4": table.deny4, "deny6": table.deny6, "failsafe": table.failsafe}
    changes = []
    for name, content in contents.items():
        try:
            with Map.open_pinned(pins.directory / name) as pinned:
                actual = dict(pinned.items())
                room = pinned.max_entries - len(actual)
        except FileNotFoundError:
            return None
        changes.append(difference(name, actual, content))
        if changes[-1].added > room:
            return None
    return changes if (pins.directory / "counters").exists() else None


def _change_in_place(pins: Pins, wanted: Wanted, changes: list[Difference], *, dry_run: bool) -> list[str]:
    if not dry_run:
        for change in changes:
            _execute(pins, change)
    return [f"{wanted.state.name}: {sentence}" for sentence in _sentences(changes)]


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
                (change.added, "added"),
                (change.changed, "changed"),
                (len(change.removed), "removed"),
            )
            if count
        ]
        if parts:
            yield f"{words[change.name]}: {', '.join(parts)}"


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"

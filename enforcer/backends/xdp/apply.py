"""Reconciling interfaces: what is there, what is wanted, the smallest step between, done without a gap.

First the address tables, which all interfaces share. When nothing but the members of sets differs, they are changed
*in place*. When policies differ too, new tables are built aside, and each interface moves to its new policy and the
new tables in one step: had it the one without the other, a packet that both states drop could pass.

Then each interface. *Swap* when the policy, the program or the tables differ: a new generation is filled beside the
old and the link is pointed at it. *Attach* when nothing of ours is live. *Move* to another mode has a gap, as the
kernel has no two modes at once; raw has every entry and covers it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enforcer.backends.xdp.addresses import AddressTables
from enforcer.backends.xdp.offload import OFFLOAD_MAPS, OffloadTable, load_offload
from enforcer.backends.xdp.state import generation
from enforcer.backends.xdp.state.generation import Contents, Elements, Loaded
from enforcer.backends.xdp.state.layout import MAPS, PROGRAM, Pins
from enforcer.backends.xdp.state.manifest import Manifest
from enforcer.backends.xdp.state.read import Installed, link_info, read_installed
from enforcer.kernel.bpf.links import Link, LinkInfo, attach_xdp
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.offload import PROGRAM as OFFLOAD_PROGRAM
from enforcer.kernel.bpf.pins import open_pinned
from enforcer.kernel.bpf.programs import program_words
from enforcer.kernel.bpf.xdp import why_refused
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.model.errors import RAN_OUT, KernelError, PrivilegeError, ran_out
from enforcer.model.vocabulary import Mode, Toolchain


class AttachmentRefused(Exception):
    """The interface cannot have what is wanted; the sentence says why. An answer for ApplyResult, not an error."""


class ForeignProgram(AttachmentRefused):
    """A program that we did not attach is there."""


@dataclass(frozen=True)
class Wanted:
    """What one interface shall have; ``classes`` of addresses there are, ``size`` says it in words."""

    state: InterfaceState
    mode: Mode
    contents: Contents | OffloadTable
    manifest: Manifest
    toolchain: Toolchain
    classes: frozenset[int]
    size: str


def is_kept(pins: Pins, wanted: Wanted) -> bool:
    """Whether the interface has what is wanted, but for what the tables say of addresses."""
    with kernel_refusals():
        generation.settle(pins)
        installed, link = read_installed(pins), link_info(pins.link)
        return (
            installed is not None
            and _live_mode(link, wanted.state) is wanted.mode
            and _same_shape(installed, wanted)
            and _same_maps(pins, wanted)
        )


def check(pins: Pins, state: InterfaceState, namespace: int) -> None:
    """Raises AttachmentRefused when a program that we did not attach is there, or the pins belong to a living interface
    elsewhere.
    """
    with kernel_refusals():
        _respect_others(read_installed(pins), link_info(pins.link), state, namespace)


def reconcile(pins: Pins, wanted: Wanted, tables: AddressTables | None, *, dry_run: bool) -> list[str]:
    """Make the interface enforce what is wanted; sentences for what was (or would be) changed. Raises
    AttachmentRefused.

    ``tables`` None: they would be built anew, in a dry run; or the program, a device's, reads none.
    """
    with kernel_refusals():
        if not dry_run:
            generation.settle(pins)
        installed, link = read_installed(pins), link_info(pins.link)
        _respect_others(installed, link, wanted.state, wanted.manifest.namespace)
        mode = _live_mode(link, wanted.state)
        if mode is wanted.mode and installed and _same_shape(installed, wanted) and _same_maps(pins, wanted):
            return []
        if not dry_run:
            generation.build(pins, _load(wanted, tables), wanted.manifest)
        if mode is None:
            return _attach(pins, wanted, dry_run=dry_run)
        if mode is not wanted.mode:
            return _move(pins, mode, wanted, dry_run=dry_run)
        return _swap(pins, wanted, dry_run=dry_run)


def put_rows(pins: Pins, number: int, rows: bytes) -> None:
    """Say of a new class of addresses what it means to this interface, before any address is of it."""
    with Map.open_pinned(pins.directory / "rows") as target:
        generation.put_elements(target, Elements(len(rows), rows), first=number)


def _load(wanted: Wanted, tables: AddressTables | None) -> Loaded:
    if isinstance(wanted.contents, OffloadTable):
        return Loaded(load_offload(wanted.contents, wanted.state.index), OFFLOAD_PROGRAM, OFFLOAD_MAPS)
    assert tables is not None
    return generation.load(wanted.contents, tables.maps, wanted.toolchain)


# What says nothing of the interface: the process or the host has run out of something. It may be there again soon, and
# is no reason to take away what is enforced.
_OUT_OF = (*RAN_OUT, errno.ENOSPC, errno.EROFS, errno.EIO)


@contextmanager
def kernel_refusals() -> Iterator[None]:
    """Map KernelErrors: PrivilegeError, AttachmentRefused, or unchanged if the host has run out of resources."""
    try:
        yield
    except KernelError as error:
        # The verifier says EACCES as well, and why.
        if error.errno == errno.EPERM or (error.errno == errno.EACCES and not error.log):
            raise PrivilegeError(f"XDP needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run as root ({error})") from error
        if error.errno in _OUT_OF:
            raise
        raise AttachmentRefused(str(error)) from error


def _respect_others(installed: Installed | None, link: LinkInfo | None, state: InterfaceState, namespace: int) -> None:
    """Refuse when a program that we did not attach is there, or the pins belong to a living interface elsewhere."""
    if installed and installed.is_attached and installed.manifest.namespace != namespace:
        raise AttachmentRefused(
            f"the pins of {state.name} belong to an enforcer in another network namespace; "
            "give each namespace a pin root of its own"
        )
    for item in state.xdp:
        if link is None or item.prog_id != link.prog_id:
            which = program_words(item.prog_id)
            raise ForeignProgram(f"{state.name} has a foreign XDP program, {which}, in {item.mode} mode; it stays")


def _live_mode(link: LinkInfo | None, state: InterfaceState) -> Mode | None:
    """How the pinned link holds its program to this very interface, which one made anew is not; None: not at all."""
    if link is None or link.ifindex != state.index:
        return None
    return next((item.mode for item in state.xdp if item.prog_id == link.prog_id), None)


def _same_shape(installed: Installed, wanted: Wanted) -> bool:
    """Whether it is the wanted program, with the wanted policy, reading the tables at hand."""
    now, then = installed.manifest, wanted.manifest
    if installed.link is None or installed.link.prog_id != installed.prog_id:
        return False  # another program was attached to our link
    return (now.program, now.policy, now.tables, now.receiver, now.entries) == (
        then.program,
        then.policy,
        then.tables,
        then.receiver,
        then.entries,
    )


def _same_maps(pins: Pins, wanted: Wanted) -> bool:
    """Whether the maps have the desired content: they may have been changed by hand."""
    contents = wanted.contents
    if isinstance(contents, OffloadTable):
        return True  # read back from a device, they would cost what they save
    try:
        for name in MAPS:
            with Map.open_pinned(pins.directory / name) as pinned:
                if name == "rows":
                    now = Elements(contents.arrays[name].size, pinned.values())
                    if any(now.one(number) != contents.arrays[name].one(number) for number in wanted.classes):
                        return False
                elif name in contents.arrays and pinned.values() != contents.arrays[name].data:
                    return False
                if name in contents.hashes and dict(pinned.items()) != contents.hash_items(name):
                    return False
    except FileNotFoundError:
        return False
    return True


def _attach(pins: Pins, wanted: Wanted, *, dry_run: bool) -> list[str]:
    sentence = f"{wanted.state.name}: attached in {wanted.mode} mode ({wanted.size})"
    if not dry_run:
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
        with _attached(fd, mode, state) as link:
            link.pin(pins.link)
    finally:
        os.close(fd)


def _attached(program: int, mode: Mode, state: InterfaceState) -> Link:
    try:
        return attach_xdp(program, state.index, mode)
    except KernelError as error:
        if error.errno in (errno.EPERM, errno.EACCES) or ran_out(error):
            raise
        raise AttachmentRefused(why_refused(mode, error, mtu=state.mtu)) from error

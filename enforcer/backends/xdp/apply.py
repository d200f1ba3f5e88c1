"""Reconciles interfaces: compares the present with the wanted state and makes the smallest change, without a gap.

The address tables, which all interfaces share, come first. If only set members differ, they are changed *in place*. If
policies differ as well, new tables are built, and each interface moves to its new policy and the new tables in one
step: with only one of the two, a packet that both states drop could pass.

Then each interface. *Swap* if the policy, the program or the tables differ: a new generation is filled beside the old
one, and the link is updated to it. *Attach* if none of our programs is attached. *Move* to another mode has a gap in
XDP, because the kernel does not allow two modes at once; raw has every entry and covers it.
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
from enforcer.kernel.bpf.conn import BpfConn, BpfLink
from enforcer.kernel.bpf.links import LinkInfo
from enforcer.kernel.bpf.offload import PROGRAM as OFFLOAD_PROGRAM
from enforcer.kernel.bpf.programs import program_words
from enforcer.kernel.bpf.xdp import why_refused
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.model.errors import RAN_OUT, KernelError, PrivilegeError, ran_out
from enforcer.model.vocabulary import Mode, Toolchain


class AttachmentRefused(Exception):
    """The interface cannot be enforced as wanted. The message states why and ends in ``ApplyResult.refused``."""


class ForeignProgram(AttachmentRefused):
    """The interface has a foreign program."""


@dataclass(frozen=True)
class Wanted:
    """The wanted state of one interface. ``classes``: numbers of address classes; ``size``: text for messages."""

    state: InterfaceState
    mode: Mode
    contents: Contents | OffloadTable
    manifest: Manifest
    toolchain: Toolchain
    classes: frozenset[int]
    size: str


def is_kept(pins: Pins, wanted: Wanted) -> bool:
    """Whether the interface already has the wanted state, apart from the content of the address tables."""
    with kernel_refusals():
        generation.settle(pins)
        installed = read_installed(pins)
        link = installed.link if installed else link_info(pins)
        return (
            installed is not None
            and _live_mode(link, wanted.state) is wanted.mode
            and _same_shape(installed, wanted)
            and _same_maps(pins, wanted)
        )


def check(pins: Pins, state: InterfaceState, namespace: int) -> None:
    """Raises AttachmentRefused if the interface has a foreign program, or the pins belong to an existing interface in
    another network namespace.
    """
    with kernel_refusals():
        installed = read_installed(pins)
        link = installed.link if installed else link_info(pins)
        _respect_others(pins.bpf, installed, link, state, namespace)


def reconcile(pins: Pins, wanted: Wanted, tables: AddressTables | None, *, dry_run: bool) -> list[str]:
    """Bring the interface to the wanted state. Returns one sentence for each change (in a dry run: that would be made).
    Raises AttachmentRefused.

    ``tables`` None: a dry run in which they would be built anew, or an offloaded program, which reads none.
    """
    with kernel_refusals():
        if not dry_run:
            generation.settle(pins)
        installed = read_installed(pins)
        link = installed.link if installed else link_info(pins)
        _respect_others(pins.bpf, installed, link, wanted.state, wanted.manifest.namespace)
        mode = _live_mode(link, wanted.state)
        if mode is wanted.mode and installed and _same_shape(installed, wanted) and _same_maps(pins, wanted):
            return []
        if not dry_run:
            generation.build(pins, _load(pins.bpf, wanted, tables), wanted.manifest)
        if mode is None:
            return _attach(pins, wanted, dry_run=dry_run)
        if mode is not wanted.mode:
            return _move(pins, mode, wanted, dry_run=dry_run)
        return _swap(pins, wanted, dry_run=dry_run)


def put_rows(pins: Pins, number: int, rows: bytes) -> None:
    """Write this interface's rows for a new class of addresses, before any address has that class."""
    with pins.bpf.open_map(pins.directory / "rows") as target:
        generation.put_elements(target, Elements(len(rows), rows), first=number)


def _load(bpf: BpfConn, wanted: Wanted, tables: AddressTables | None) -> Loaded:
    if isinstance(wanted.contents, OffloadTable):
        return Loaded(load_offload(bpf, wanted.contents, wanted.state.index), OFFLOAD_PROGRAM, OFFLOAD_MAPS)
    assert tables is not None
    return generation.load(bpf, wanted.contents, tables.maps, wanted.toolchain)


# Errors that say nothing about the interface: the process or the host has run out of a resource. This may be temporary
# and is no reason to remove what is enforced.
_OUT_OF = (*RAN_OUT, errno.ENOSPC, errno.EROFS, errno.EIO)


@contextmanager
def kernel_refusals() -> Iterator[None]:
    """Map KernelErrors: PrivilegeError, AttachmentRefused, or unchanged if the host has run out of resources."""
    try:
        yield
    except KernelError as error:
        # The verifier also returns EACCES, but with a log.
        if error.errno == errno.EPERM or (error.errno == errno.EACCES and not error.log):
            raise PrivilegeError(f"XDP needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run as root ({error})") from error
        if error.errno in _OUT_OF:
            raise
        raise AttachmentRefused(str(error)) from error


def _respect_others(
    bpf: BpfConn, installed: Installed | None, link: LinkInfo | None, state: InterfaceState, namespace: int
) -> None:
    """Refuse if there is a foreign program, or the pins belong to an existing interface in another namespace."""
    if installed and installed.is_attached and installed.manifest.namespace != namespace:
        raise AttachmentRefused(
            f"the pins of {state.name} belong to an enforcer in another network namespace; "
            "give each namespace a pin root of its own"
        )
    for item in state.xdp:
        if link is None or item.prog_id != link.prog_id:
            which = program_words(item.prog_id, bpf.program_name(item.prog_id))
            raise ForeignProgram(f"{state.name} has a foreign XDP program, {which}, in {item.mode} mode; it stays")


def _live_mode(link: LinkInfo | None, state: InterfaceState) -> Mode | None:
    """The mode in which the pinned link attaches its program to this interface; None if it does not. An interface that
    was deleted and created again is another one.
    """
    if link is None or link.ifindex != state.index:
        return None
    return next((item.mode for item in state.xdp if item.prog_id == link.prog_id), None)


def _same_shape(installed: Installed, wanted: Wanted) -> bool:
    """Whether the installed program is the wanted one, with the wanted policy and these tables."""
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
    """Whether the maps have the wanted content: another program may have changed them."""
    contents = wanted.contents
    if isinstance(contents, OffloadTable):
        return True  # reading them from a device costs as much as writing them
    try:
        for name in MAPS:
            with pins.bpf.open_map(pins.directory / name) as pinned:
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
        generation.remove_link(pins)  # of an interface that no longer exists
        try:
            _hold(pins, pins.next / PROGRAM, wanted.mode, wanted.state)
        except BaseException:
            generation.remove(pins)
            raise
        generation.finish(pins)
    return [sentence]


def _swap(pins: Pins, wanted: Wanted, *, dry_run: bool) -> list[str]:
    if not dry_run:
        fd = pins.bpf.open_pinned(pins.next / PROGRAM)
        try:
            with pins.bpf.open_link(pins.link) as link:
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
                _hold(pins, pins.directory / PROGRAM, old, wanted.state)  # restore
            raise
        generation.finish(pins)
    return [f"{wanted.state.name}: moved from {old} to {wanted.mode} mode ({wanted.size})"]


def _hold(pins: Pins, program: Path, mode: Mode, state: InterfaceState) -> None:
    """Attach a pinned program and pin the link. A crash before the link is pinned detaches the program."""
    fd = pins.bpf.open_pinned(program)
    try:
        with _attached(pins.bpf, fd, mode, state) as link:
            link.pin(pins.link)
    finally:
        os.close(fd)


def _attached(bpf: BpfConn, program: int, mode: Mode, state: InterfaceState) -> BpfLink:
    try:
        return bpf.attach_xdp(program, state.index, mode)
    except KernelError as error:
        if error.errno in (errno.EPERM, errno.EACCES) or ran_out(error):
            raise
        raise AttachmentRefused(why_refused(mode, error, mtu=state.mtu)) from error

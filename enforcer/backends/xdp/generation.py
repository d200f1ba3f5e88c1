"""A generation: maps and program of one interface, built beside the one in force and put in its place.

The order makes every moment a state the next pass can go on from. Building: pinned under ``next/``, the program last.
Going live: the link is attached or swapped, one step for the kernel. Finishing: what the old generation counted is
carried over, then each pin moves up, the program last. So ``next/`` with the live program in it is to be finished,
any other to be discarded (:func:`settle`).
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

from enforcer.backends.xdp import manifest as manifests
from enforcer.backends.xdp.layout import GENERATION, MANIFEST, MAPS, PROGRAM, Pins
from enforcer.backends.xdp.manifest import Manifest
from enforcer.backends.xdp.read import link_info, pinned_program, read_counts, read_installed
from enforcer.backends.xdp.render import MapContent, XdpTable
from enforcer.errors import KernelError
from enforcer.kernel.bpf import BPF_F_XDP_HAS_FRAGS, BpfObject, Link, pin
from enforcer.kernel.maps import Map
from enforcer.kernel.rcu import wait_for_readers
from enforcer.words import Mode

OBJECT = Path(__file__).parents[2] / "_bpf" / "xdp_untracked.bpf.o"
XDP_PROGRAM = "xdp_untracked"

_SMALLEST_TRIE = 1 << 16


def capacity_for(prefixes: int) -> int:
    """Elements a trie is made for: twice what it holds, so that a list can grow in place. Costs nothing until used."""
    return max(_SMALLEST_TRIE, 1 << (2 * prefixes - 1).bit_length())


@cache
def program_digest() -> str:
    """Of the BPF object at hand: another one means another program is wanted."""
    try:
        return hashlib.sha256(OBJECT.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise KernelError(f"{OBJECT}: no such BPF object; build it with 'make -C bpf' (needs clang)") from error


def build(pins: Pins, table: XdpTable, manifest: Manifest, ifindex: int) -> None:
    """Load, fill and pin a new generation under ``next/``. KernelError leaves nothing there."""
    discard_next(pins)
    pins.next.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            obj = stack.enter_context(_load(table, manifest, ifindex))
            for pinned, name in MAPS.items():
                with obj.map(name) as target:
                    fill(target, _content(table, pinned))
                    target.pin(pins.next / pinned)
            with manifests.create(manifest) as holder:
                holder.pin(pins.next / MANIFEST)
            pin(obj.program(XDP_PROGRAM).fd, pins.next / PROGRAM)
    except BaseException:
        discard_next(pins)
        raise


def fill(target: Map, content: MapContent | None) -> None:
    """Put contents into a map that is empty."""
    if content:
        target.update_batch(content.keys, content.values, len(content))


def settle(pins: Pins) -> None:
    """Finish or discard what a killed agent left half-way."""
    if not pins.next.is_dir():
        return
    link, program = link_info(pins.link), pinned_program(pins.next / PROGRAM)
    if link is not None and program is not None and link.prog_id == program:
        finish(pins)
    else:
        discard_next(pins)


def finish(pins: Pins) -> None:
    """Move the generation that is live already from ``next/`` to its place, and with it what the old one counted."""
    wait_for_readers()  # from here on nobody counts in the old maps
    _carry_counts(pins)
    for name in GENERATION:
        with suppress(FileNotFoundError):  # moved before the agent was killed
            os.replace(pins.next / name, pins.directory / name)
    pins.next.rmdir()


def discard_next(pins: Pins) -> None:
    """Remove a generation that did not go live."""
    _remove_directory(pins.next)


def remove(pins: Pins) -> None:
    """Detach and remove everything of an interface: the link first, so that no program runs without its maps."""
    remove_link(pins)
    discard_next(pins)
    _remove_directory(pins.directory)


def remove_link(pins: Pins) -> None:
    """Detach now; merely unpinning would leave that to whenever the last reference goes."""
    try:
        with Link.open_pinned(pins.link) as link, suppress(KernelError):  # its interface may be gone: nothing to detach
            link.detach()
    except FileNotFoundError:
        return
    pins.link.unlink()


def _carry_counts(pins: Pins) -> None:
    new, old = manifests.read(pins.next / MANIFEST), read_installed(pins)
    if new is None or new.carried is not None:
        return
    counts = {} if old is None else read_counts(pins, old.manifest)
    with Map.open_pinned(pins.next / MANIFEST) as holder:
        manifests.write(holder, new.with_carried(counts))


def _content(table: XdpTable, pinned: str) -> MapContent | None:
    return {"deny4": table.deny4, "deny6": table.deny6, "failsafe": table.failsafe}.get(pinned)


def _load(table: XdpTable, manifest: Manifest, ifindex: int) -> BpfObject:
    """The loaded object; without multi-buffer frames where the kernel does not know them (before Linux 5.18)."""
    try:
        return _load_with(table, manifest, ifindex, multi_buffer=True)
    except KernelError as first:
        if first.errno != errno.EINVAL:
            raise
        try:
            return _load_with(table, manifest, ifindex, multi_buffer=False)
        except KernelError:
            raise first from None


def _load_with(table: XdpTable, manifest: Manifest, ifindex: int, *, multi_buffer: bool) -> BpfObject:
    obj = BpfObject(OBJECT)
    try:
        obj.set_const("pass_tagged", int(manifest.pass_tagged))
        obj.set_const("multi_buffer", int(multi_buffer))
        if not multi_buffer:
            obj.clear_program_flags(XDP_PROGRAM, BPF_F_XDP_HAS_FRAGS)
        obj.resize_map("deny4", capacity_for(len(table.deny4)))
        obj.resize_map("deny6", capacity_for(len(table.deny6)))
        obj.resize_map("entry_counters", max(1, len(table.entries)))
        if manifest.mode is Mode.OFFLOAD:
            obj.bind_to_device(XDP_PROGRAM, ifindex)
        obj.load()
    except BaseException:
        obj.close()
        raise
    return obj


def _remove_directory(path: Path) -> None:
    if path.is_dir():
        for item in path.iterdir():
            item.unlink()
        path.rmdir()

"""HostFacts from the running kernel: probes every XDP mode of every interface: yes, no or cannot tell.

To an interface without a program, one that passes everything is attached with a BPF link and detached at once: nothing
else takes every condition into account (driver, MTU, queues, privileges). Drivers that rebuild their rings for native
XDP pause for that moment. An interface with a program is not disturbed; its program and its driver's features answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from enforcer.kernel.bpf.features import announces_native_xdp
from enforcer.kernel.bpf.links import attach_xdp
from enforcer.kernel.bpf.offload import PROGRAM as OFFLOAD_PROGRAM
from enforcer.kernel.bpf.offload import why_no_offload
from enforcer.kernel.bpf.programs import program_name, program_words
from enforcer.kernel.bpf.toolchain import PROGRAM
from enforcer.kernel.bpf.xdp import load_pass_program, why_refused
from enforcer.kernel.rtnetlink import LINK_TYPES, InterfaceState, gateways, interfaces
from enforcer.model.errors import HostError, KernelError, ran_out
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Answer, Backend, Mode

_OURS = (PROGRAM, OFFLOAD_PROGRAM)

_NO_PRIVILEGE = (errno.EPERM, errno.EACCES)

T = TypeVar("T")
BackendProbes = Mapping[Backend, Callable[[], Probe]]


def probe_host(
    node: str,
    interfaces_wanted: Sequence[str] | None = None,
    *,
    backends: BackendProbes | None = None,
    ours: Collection[int] = (),
) -> HostFacts:
    """Facts of these interfaces (None: all) of the calling thread's namespace, with the result of each backend's probe.

    ``ours``: the ids of our own programs. An interface that does not exist is left out.
    """
    states: list[InterfaceState] = []
    if interfaces_wanted is None or interfaces_wanted:  # most passes need no answers anew
        states = [item for item in interfaces() if interfaces_wanted is None or item.name in interfaces_wanted]
    hops = gateways() if states else {}
    return HostFacts(
        node=node,
        kernel=os.uname().release,
        interfaces=tuple(_facts(state, hops.get(state.index, ()), ours) for state in states),
        backends={backend: probe() for backend, probe in (backends or {}).items()},
    )


def foreign_xdp(state: InterfaceState, ours: Collection[int] = ()) -> str:
    """Describes a foreign program on the interface by id or name; "" if there is none.

    Reading the name of a program needs CAP_SYS_ADMIN. Without it, ours are recognised only by their ids, from our pins.
    """
    for item in state.xdp:
        if item.prog_id not in ours and program_name(item.prog_id) not in _OURS:
            return f"program {program_words(item.prog_id, program_name(item.prog_id))}, {item.mode}"
    return ""


def _facts(state: InterfaceState, hops: tuple[IPAddress, ...], ours: Collection[int]) -> InterfaceFacts:
    foreign = _or_unknown(lambda: foreign_xdp(state, ours), must_answer=bool(state.xdp))
    return InterfaceFacts(
        name=state.name,
        index=state.index,
        driver=state.driver,
        mtu=state.mtu,
        addresses=state.addresses,
        modes=_modes(state, foreign),
        foreign_xdp=foreign if isinstance(foreign, str) else "",
        gateways=hops,
        alternative_names=state.alternative_names,
        unseen=state.unseen,
        netdev_ingress=netdev_ingress(state),
    )


def netdev_ingress(state: InterfaceState) -> Probe:
    """Whether nf_tables may drop what the interface receives. Nothing is tried for this."""
    if state.rx_owner:
        return Probe(Answer.NO, why_not_received(state))
    return Probe(Answer.UNKNOWN, state.unseen) if state.unseen else Probe(Answer.YES)


def why_not_shape(state: InterfaceState) -> str:
    """Why no XDP mode would drop only what raw drops, whatever the driver supports; "" if there is no such reason."""
    if not state.has_ethernet:
        known = LINK_TYPES.get(state.link_type)
        kind = f"{state.link_type} ({known})" if known else str(state.link_type)
        return f"its packets have no Ethernet header (link type {kind}), which the XDP program would read"
    if state.rx_owner:
        return why_not_received(state)
    if state.vlans and not state.tags_in_frame:
        return (
            f"{state.vlans} is on it, and tags are not in its frames when XDP sees them (rx-vlan-offload): "
            f"XDP could not tell which interface a packet is for; 'ethtool -K {state.name} rxvlan off' changes that "
            "for network cards"
        )
    return ""


def why_not_received(state: InterfaceState) -> str:
    """Why raw does not see the interface's packets as received by it, so that nothing before raw may drop them."""
    return f"{state.rx_owner} takes its packets before raw could see them as {state.name}'s"


def _modes(state: InterfaceState, foreign: str | Probe) -> dict[Mode, Probe]:
    if isinstance(foreign, Probe):  # the owner of the program could not be determined
        return dict.fromkeys(Mode, foreign)
    if foreign:
        return dict.fromkeys(Mode, Probe(Answer.NO, f"{state.name} has a foreign XDP {foreign}"))
    if shape := why_not_shape(state):
        return dict.fromkeys(Mode, Probe(Answer.NO, shape))
    ask = {Mode.OFFLOAD: _offload, Mode.NATIVE: _native, Mode.GENERIC: _generic}
    answers = {mode: ask[mode](state) for mode in Mode}
    if state.unseen:  # the driver's support is not sufficient
        return {
            mode: Probe(Answer.UNKNOWN, state.unseen) if item.answer is Answer.YES else item
            for mode, item in answers.items()
        }
    return answers


def _native(state: InterfaceState) -> Probe:
    if not state.xdp:
        return _try_to_attach(state, Mode.NATIVE)
    if any(item.mode is Mode.NATIVE for item in state.xdp):
        return Probe(Answer.YES)
    announced = announces_native_xdp(state.index)
    if announced is None:
        return Probe(
            Answer.UNKNOWN, "our program is attached in another mode, and this kernel does not tell (Linux 6.3)"
        )
    return Probe(Answer.YES) if announced else Probe(Answer.NO, "the driver announces no native XDP")


def _generic(state: InterfaceState) -> Probe:
    """YES if our own program is attached: the kernel provides generic XDP, not the driver, so any interface has it."""
    return Probe(Answer.YES) if state.xdp else _try_to_attach(state, Mode.GENERIC)


def _offload(state: InterfaceState) -> Probe:
    """Loads the program for the device. This attaches nothing."""
    if any(item.mode is Mode.OFFLOAD for item in state.xdp):
        return Probe(Answer.YES)

    def load() -> Probe:
        reason = why_no_offload(state.index)
        return Probe(Answer.NO, reason) if reason else Probe(Answer.YES)

    return _or_unknown(load)


def _try_to_attach(state: InterfaceState, mode: Mode) -> Probe:
    def attach() -> Probe:
        fd = load_pass_program()
        try:
            attach_xdp(fd, state.index, mode).close()
        except KernelError as error:
            if error.errno in _NO_PRIVILEGE or ran_out(error):
                raise
            return Probe(Answer.NO, why_refused(mode, error, mtu=state.mtu))
        finally:
            os.close(fd)
        return Probe(Answer.YES)

    return _or_unknown(attach)


def _or_unknown(ask: Callable[[], T], *, must_answer: bool = False) -> T | Probe:
    """The answer, or why there is none: UNKNOWN without privileges, NO without libbpf.

    ``must_answer``: raise KernelError if the host has run out of descriptors or memory. Without an answer the plan
    would have no XDP, and a program of ours that is attached would be detached.
    """
    try:
        return ask()
    except KernelError as error:
        if ran_out(error):
            if must_answer:
                raise
            return Probe(Answer.UNKNOWN, str(error), temporary=True)
        if error.errno in _NO_PRIVILEGE:
            return Probe(Answer.UNKNOWN, "asking needs CAP_NET_ADMIN and CAP_BPF (root)")
        return Probe(Answer.NO, str(error))
    except HostError as error:
        return Probe(Answer.NO, str(error))

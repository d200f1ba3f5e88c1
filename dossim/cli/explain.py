"""``dossim explain``: one packet's path through the pipeline, hop by hop."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from dossim.cli.options import STDOUT, HostOptions, PolicyCommand, capture_options, host_options, open_capture
from dossim.cli.trace_view import Explained, explained_as_dict, print_explained
from enforcer.cli.options import mode_option
from enforcer.cli.support import emit, output_option, verbose_option, warn
from enforcer.model.choices import TrackedChoice
from enforcer.model.errors import UnsupportedRuleError, UsageError
from enforcer.model.vocabulary import Stage

if TYPE_CHECKING:
    from dossim.drill.situation import Situation
    from dossim.packet.capture import Capture, Reading
    from dossim.pipeline.explain import Trace


@click.command(cls=PolicyCommand)
@host_options
@capture_options
@mode_option
@click.option("--egress", is_flag=True, help="Explain a packet that the host sends: egress policy (raw OUTPUT).")
@click.argument("packet")
@output_option
@verbose_option
def explain(host: HostOptions, reading: Reading, mode: str, egress: bool, packet: str, output: str) -> None:
    """Show one packet's path through the pipeline, and the entry and line of YAML that decided.

    PACKET is a Scapy expression or CAPTURE#N. In an expression the destination (with --egress: the source) may be
    omitted; a missing source port is an ephemeral one. The output lists the fields that policy matches on and the
    expression does not set. CAPTURE#N is packet N of a capture, counted from 0 as in all reports of dossim, including
    skipped packets (Wireshark counts from 1). /dev/stdin#N reads the capture from stdin.

    With --tracked model (default), normal, preDNAT and forward policy decides nothing; the output says what Calico
    would do with the packet.

    \b
    Example:
      dossim explain -p policies/ 'IP(src="203.0.113.9")/TCP(dport=80)'
      dossim explain -p policies/ attack.pcap#1730
      dossim explain -p policies/ --egress 'IP(dst="203.0.113.9")/UDP(dport=53)'
    """
    found = explained(host, mode, packet, reading, egress=egress)
    emit(explained_as_dict(found), output, lambda console: print_explained(found, console))


def explained(host: HostOptions, mode: str, packet: str, reading: Reading, *, egress: bool = False) -> Explained:
    """The packet and what becomes of it. Raises PacketError, CaptureError or UsageError for an invalid PACKET."""
    chosen = re.fullmatch(r"(.+)#([0-9]{1,12})", packet, re.DOTALL)
    if chosen and ("(" not in chosen[1] or os.path.exists(chosen[1])):  # "attack (1).pcap"
        return _of_capture(host, mode, chosen[1], int(chosen[2]), reading, egress=egress)
    if packet == STDOUT or os.path.exists(packet):  # False for what no file can be called
        named = "/dev/stdin" if packet == STDOUT else packet
        raise UsageError(f"{packet}: packet number missing; {named}#0 is the first packet")
    path, mark, number = packet.rpartition("#")
    if mark and os.path.exists(path):
        raise UsageError(f"{packet}: expected the number of a packet after '#', found {number!r}; 0 is the first")
    return _of_expression(host, mode, packet, egress=egress)


def _traced(
    frame: bytes, situation: Situation, trace: Callable[[bool], Trace], assumed: Sequence[str] = ()
) -> Explained:
    """``trace`` makes the packet's trace; its argument is whether tracked policy decides too."""
    if situation.tracked is TrackedChoice.ENFORCE:
        return Explained(frame, trace(True), assumed)
    return Explained(frame, trace(False), assumed, _with_calico(situation, trace))


def _with_calico(situation: Situation, trace: Callable[[bool], Trace]) -> Trace | str | None:
    from dossim.pipeline.tracked import TrackedPolicy

    try:
        governs = TrackedPolicy.of(situation.resources, situation.host).governs
    except UnsupportedRuleError as error:
        return str(error)
    return trace(True) if governs else None


def _of_capture(host: HostOptions, mode: str, path: str, record: int, reading: Reading, *, egress: bool) -> Explained:
    from dossim.drill.judged import HEADER, ZERO, every, judged
    from dossim.packet.cut import frame_on_wire
    from dossim.pipeline.related import related

    capture = open_capture(path, reading, host)
    number = _place(capture, path, record)
    situation = host.situation(host.resources(), capture=capture, mode=mode)
    if egress:
        return _sent(situation, capture.frame(number))
    for warning in capture.warnings:
        warn(warning)
    instead = judged(capture, every(capture))

    def trace_in(capture: Capture, *, tracked: bool) -> Trace:
        numbers = related(capture, number, tracked=tracked)
        frames = [frame_on_wire(capture, index) for index in numbers]
        trace: Trace = _explainer(situation, tracked=tracked).explain_packet_of(frames, numbers.index(number))
        return trace

    def trace(tracked: bool) -> Trace:
        found = trace_in(instead.capture, tracked=tracked)
        if instead.zero[number]:
            found = found.with_reason(ZERO)
        if instead.mended is not None:
            found = found.open_where_other(trace_in(instead.mended, tracked=tracked), Stage.IP_INPUT, HEADER)
        return found

    return _traced(instead.capture.frame(number), situation, trace)


def _place(capture: Capture, path: str, record: int) -> int:
    """The index of the file's packet ``record`` among those that were read. Raises UsageError if it was not read."""
    number = int(capture.record.searchsorted(record))
    if number < len(capture) and capture.record[number] == record:
        return number
    held = sum(capture.link_types.values())
    if record < held and capture.skipped:
        left_out = ", ".join(f"{count:,} {kind}" for kind, count in capture.skipped.items())
        raise UsageError(f"{path}#{record}: the packet is one of the skipped ones: {left_out}")
    raise UsageError(f"{path}#{record}: the capture {_numbers(held)}")


def _numbers(held: int) -> str:
    match held:
        case 0:
            return "holds no packet"
        case 1:
            return "holds one packet, 0"
    return f"holds {held:,} packets, 0 to {held - 1}"


def _of_expression(host: HostOptions, mode: str, expression: str, *, egress: bool) -> Explained:
    from dossim.packet.capture import Capture
    from dossim.scenario.expression import assumed_in, frame_of
    from dossim.scenario.situation import destinations_of

    resources = host.resources()
    situation = host.situation(resources, capture=None, mode=mode)
    if egress:
        frame = frame_of(expression, {}, sources=destinations_of(situation))
        return _sent(situation, frame, assumed_in(expression))
    frame = frame_of(expression, destinations_of(situation))
    if not situation.host.addresses:  # then the packet's destination is the host
        situation = host.situation(resources, capture=Capture.from_frames([frame]), mode=mode)
    found = situation

    def trace(tracked: bool) -> Trace:
        trace: Trace = _explainer(found, tracked=tracked).explain(frame)
        return trace

    return _traced(frame, found, trace, assumed_in(expression))


def _sent(situation: Situation, frame: bytes, assumed: Sequence[str] = ()) -> Explained:
    from dossim.drill.situation import lab_facts, plan_for
    from dossim.pipeline.egress import SentExplainer

    plan = plan_for(situation, lab_facts(situation.host))

    def trace(tracked: bool) -> Trace:
        explainer = SentExplainer.of(situation.resources, situation.host, plan.raw_backend, tracked=tracked)
        return explainer.explain(frame)

    return _traced(frame, situation, trace, assumed)


def _explainer(situation: Situation, *, tracked: bool) -> Any:
    from dossim.drill.situation import lab_facts, plan_for
    from dossim.pipeline.explain import Explainer

    plan = plan_for(situation, lab_facts(situation.host))
    return Explainer(
        situation.resources,
        situation.host,
        mode=plan.mode,
        raw_backend=plan.raw_backend,
        netdev=plan.netdev,
        tracked=tracked,
    )

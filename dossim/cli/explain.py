"""``dossim explain``: one packet's path through the pipeline, hop by hop."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dossim.cli.options import STDOUT, HostOptions, PolicyCommand, capture_options, host_options, open_capture
from enforcer.cli.console import line
from enforcer.cli.options import mode_option
from enforcer.cli.support import emit, output_option, verbose_option, warn
from enforcer.model.choices import TrackedChoice
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Stage

if TYPE_CHECKING:
    from dossim.drill.situation import Situation
    from dossim.model.disposition import Disposition
    from dossim.packet.capture import Capture, Reading
    from dossim.pipeline.explain import Hop, Trace
    from enforcer.model.errors import Position

SCHEMA = "dossim/explain/v1"


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

    \b
    Example:
      dossim explain -p policies/ 'IP(src="203.0.113.9")/TCP(dport=80)'
      dossim explain -p policies/ attack.pcap#1730
      dossim explain -p policies/ --egress 'IP(dst="203.0.113.9")/UDP(dport=53)'
    """
    from dossim.packet.summary import summary

    tracked = host.tracked == TrackedChoice.ENFORCE
    frame, trace, assumed = explained(host, mode, packet, reading, egress=egress, tracked=tracked)
    data = trace_as_dict(summary(frame), trace, assumed)
    emit(data, output, lambda console: _print(data["packet"], trace, assumed, console))


def explained(
    host: HostOptions, mode: str, packet: str, reading: Reading, *, egress: bool = False, tracked: bool = False
) -> tuple[bytes, Trace, Sequence[str]]:
    """The frame, its trace, and the fields that the expression did not set. ``tracked``: tracked policy decides too.

    Raises PacketError, CaptureError or UsageError for an invalid PACKET.
    """
    chosen = re.fullmatch(r"(.+)#([0-9]{1,12})", packet)
    if chosen and "(" not in chosen[1]:
        return *_of_capture(host, mode, chosen[1], int(chosen[2]), reading, egress=egress, tracked=tracked), ()
    if "(" not in packet and (packet == STDOUT or os.path.exists(packet)):  # False for what no file can be called
        named = "/dev/stdin" if packet == STDOUT else packet
        raise UsageError(f"{packet}: packet number missing; {named}#0 is the first packet")
    path, mark, number = packet.rpartition("#")
    if mark and "(" not in path and os.path.exists(path):
        raise UsageError(f"{packet}: expected the number of a packet after '#', found {number!r}; 0 is the first")
    return _of_expression(host, mode, packet, egress=egress, tracked=tracked)


def _of_capture(
    host: HostOptions, mode: str, path: str, record: int, reading: Reading, *, egress: bool, tracked: bool
) -> tuple[bytes, Trace]:
    from dossim.drill.judged import HEADER, ZERO, every, judged
    from dossim.packet.cut import frame_on_wire
    from dossim.pipeline.related import related

    capture = open_capture(path, reading, host)
    number = _place(capture, path, record)
    situation = host.situation(host.resources(), capture=capture, mode=mode)
    if egress:
        return capture.frame(number), _sent(situation, capture.frame(number), tracked=tracked)
    for warning in capture.warnings:
        warn(warning)
    instead = judged(capture, every(capture))

    def trace_in(capture: Capture) -> Trace:
        numbers = related(capture, number, tracked=tracked)
        frames = [frame_on_wire(capture, index) for index in numbers]
        trace: Trace = _explainer(situation, tracked=tracked).explain_packet_of(frames, numbers.index(number))
        return trace

    trace = trace_in(instead.capture)
    if instead.zero[number]:
        trace = trace.with_reason(ZERO)
    if instead.mended is not None:
        trace = trace.open_where_other(trace_in(instead.mended), Stage.IP_INPUT, HEADER)
    return instead.capture.frame(number), trace


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


def _of_expression(
    host: HostOptions, mode: str, expression: str, *, egress: bool, tracked: bool
) -> tuple[bytes, Trace, Sequence[str]]:
    from dossim.packet.capture import Capture
    from dossim.scenario.expression import assumed_in, frame_of
    from dossim.scenario.situation import destinations_of

    resources = host.resources()
    situation = host.situation(resources, capture=None, mode=mode)
    if egress:
        frame = frame_of(expression, {}, sources=destinations_of(situation))
        return frame, _sent(situation, frame, tracked=tracked), assumed_in(expression)
    frame = frame_of(expression, destinations_of(situation))
    if not situation.host.addresses:  # then the packet's destination is the host
        situation = host.situation(resources, capture=Capture.from_frames([frame]), mode=mode)
    return frame, _explainer(situation, tracked=tracked).explain(frame), assumed_in(expression)


def _sent(situation: Situation, frame: bytes, *, tracked: bool) -> Trace:
    from dossim.drill.situation import lab_facts, plan_for
    from dossim.pipeline.egress import SentExplainer

    plan = plan_for(situation, lab_facts(situation.host))
    explainer = SentExplainer.of(situation.resources, situation.host, plan.raw_backend, tracked=tracked)
    return explainer.explain(frame)


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


def trace_as_dict(packet: str, trace: Trace, assumed: Sequence[str] = ()) -> dict[str, Any]:
    """The trace for JSON; ``assumed`` are the fields that the expression did not set, with the values used. ``others``
    are the further ends of a packet that has a set of them, and ``depends`` is on what.
    """
    ended = trace.disposition
    return {
        "schema": SCHEMA,
        "packet": packet,
        "assumed": list(assumed),
        **_end_as_dict(ended),
        "others": [_end_as_dict(other) for other in ended.others],
        "depends": ended.depends,
        "hops": [_hop_as_dict(hop) for hop in trace.hops],
    }


def _end_as_dict(ended: Disposition) -> dict[str, Any]:
    return {
        "fate": str(ended.fate),
        "stage": ended.stage and str(ended.stage),
        "entry": ended.entry,
        "reason": ended.reason,
    }


def _hop_as_dict(hop: Hop) -> Mapping[str, Any]:
    return {
        "stage": str(hop.stage),
        "looked_at": hop.looked_at,
        "result": hop.result,
        "entry": hop.entry,
        "source": hop.position and str(hop.position),
        "note": hop.note,
    }


def _print(packet: str, trace: Trace, assumed: Sequence[str], console: Console) -> None:
    console.print(line(packet, "bold"), soft_wrap=True)
    if assumed:
        console.print(line(f"not in the expression, assumed: {', '.join(assumed)}", "yellow"), soft_wrap=True)
    table = Table("stage", "looked at", "result", box=None, pad_edge=False, header_style="dim")
    for hop in trace.hops[:-1]:
        result = Text("\n").join(line(text) for text in (hop.result, hop.note) if text)
        table.add_row(line(hop.stage), line(hop.looked_at), result)
    console.print(table)
    end = trace.disposition
    blocked = " (blocked, as the policy says)" if end.entry and not end.others else ""
    console.print(line(f"{_ending(trace)}{blocked}", "bold"), soft_wrap=True)
    for hop in trace.hops:
        if hop.position is not None and hop.entry:
            console.print(line(f"  {hop.entry}: {hop.position}"), soft_wrap=True)
            for source in _line_of(hop.position):
                console.print(line(f"    {source}"), soft_wrap=True)


def _ending(trace: Trace) -> str:
    """A packet that leaves counts as forwarded; for egress the output says sent."""
    return trace.disposition.reason if trace.is_sent else str(trace.disposition)


def _line_of(position: Position) -> Sequence[str]:
    """The text of the YAML line, if the file can still be read."""
    from enforcer.system.files import UnreadableError, read_text

    try:
        return read_text(position.path).splitlines()[position.line - 1 : position.line]
    except UnreadableError:
        return ()

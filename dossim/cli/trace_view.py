"""What ``dossim explain`` prints, and its JSON data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from enforcer.cli.console import line
from enforcer.model.vocabulary import Stage

if TYPE_CHECKING:
    from dossim.model.disposition import Disposition
    from dossim.pipeline.explain import Hop, Trace
    from enforcer.model.errors import Position

SCHEMA = "dossim/explain/v1"
NOT_ENFORCED = "not enforced here (tracked: model)"

# Where tracked policy decides, and what it decides on.
_LATER = (Stage.CONNTRACK, Stage.MANGLE, Stage.FILTER_INPUT, Stage.FILTER_FORWARD, Stage.EGRESS)


@dataclass(frozen=True)
class Explained:
    """A frame and its trace; ``assumed`` are the fields that the expression did not set, with the values used.

    ``calico`` is the trace with tracked policy that is not enforced: what Calico would do. None if it is enforced or no
    HostEndpoint governs the host's interfaces; a string states why it cannot be evaluated.
    """

    frame: bytes
    trace: Trace
    assumed: Sequence[str] = ()
    calico: Trace | str | None = None


def explained_as_dict(found: Explained) -> dict[str, Any]:
    """``others`` are the further ends of a packet that has a set of them, and ``depends`` is on what. ``calico``: the
    same with tracked policy that is not enforced.
    """
    from dossim.packet.summary import summary

    return {
        "schema": SCHEMA,
        "packet": summary(found.frame),
        "assumed": list(found.assumed),
        **_trace_as_dict(found.trace),
        "calico": _calico_as_dict(found.calico),
    }


def _calico_as_dict(calico: Trace | str | None) -> dict[str, Any] | None:
    if calico is None:
        return None
    return {"why_not": calico} if isinstance(calico, str) else {"why_not": None, **_trace_as_dict(calico)}


def _trace_as_dict(trace: Trace) -> dict[str, Any]:
    ended = trace.disposition
    return {
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


def print_explained(found: Explained, console: Console) -> None:
    """The path, the end, and the lines of YAML that decided; at the stages of tracked policy also what Calico does."""
    from dossim.packet.summary import summary

    trace = found.trace
    console.print(line(summary(found.frame), "bold"), soft_wrap=True)
    if found.assumed:
        console.print(line(f"not in the expression, assumed: {', '.join(found.assumed)}", "yellow"), soft_wrap=True)
    table = Table("stage", "looked at", "result", box=None, pad_edge=False, header_style="dim")
    calico = found.calico if not isinstance(found.calico, str) else None
    for hop in trace.hops[:-1]:
        texts = [hop.result, hop.note, *(_with_calico(hop, calico) if calico else ())]
        table.add_row(line(hop.stage), line(hop.looked_at), Text("\n").join(line(text) for text in texts if text))
    console.print(table)
    end = trace.disposition
    blocked = " (blocked, as the policy says)" if end.entry and not end.others else ""
    console.print(line(f"{_ending(trace)}{blocked}", "bold"), soft_wrap=True)
    _print_rules(trace.hops, console)
    if isinstance(found.calico, str):
        text = f"tracked policy is {NOT_ENFORCED}, and what Calico would do is unknown: {found.calico}"
        console.print(line(text, "yellow"), soft_wrap=True)
    if calico is not None and calico.disposition.ends != end.ends:
        text = f"{NOT_ENFORCED}: with Calico it would be {_ending(calico)}"
        console.print(line(text, "yellow bold"), soft_wrap=True)
        known = [(hop.stage, hop.entry) for hop in trace.hops]
        _print_rules([hop for hop in calico.hops if (hop.stage, hop.entry) not in known], console)


def _with_calico(hop: Hop, calico: Trace) -> Iterator[str]:
    """What Calico finds at the hop's stage, where that is something else."""
    for other in calico.hops[:-1] if hop.stage in _LATER else ():
        if other.stage is hop.stage and other.result != hop.result:
            yield f"Calico: {other.result}"
            yield other.note


def _print_rules(hops: Sequence[Hop], console: Console) -> None:
    for hop in hops:
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

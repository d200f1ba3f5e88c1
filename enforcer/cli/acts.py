"""What the commands of emergency acts share: their options, the guard's refusal, the audit event, cleaning up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enforcer.cli.options import datastore_options, node_option
from enforcer.cli.support import NonEmptyPath, warn
from enforcer.model.errors import EnforcerError, UsageError

if TYPE_CHECKING:
    from enforcer.datastore.open import Place
    from enforcer.datastore.writer import Writer
    from enforcer.emergency.act import Act
    from enforcer.emergency.commit import Done
    from enforcer.policy.resources import Resources
    from enforcer.policy.tolerant import Loaded

REFUSED = 1  # the exit code
SYSLOG = "/dev/log"
_PRUNE_AFTER_S = 600

Command = TypeVar("Command", bound=Callable[..., Any])


class GuardError(EnforcerError):
    """Nothing was written, because of what it would do; each line names one thing."""

    exit_code = REFUSED


_POLICY_HELP = "The directory or file of resources that the agent follows (--datastore files). May be repeated."


def policy_option(command: Command, help_text: str = _POLICY_HELP) -> Command:
    return click.option(
        "--policy",
        "files",
        type=NonEmptyPath(path_type=Path),
        multiple=True,
        envvar="ENFORCER_POLICY",
        metavar="PATH",
        help=help_text,
    )(command)


def policy_options(command: Command) -> Command:
    """Where the policy is: as for ``enforcer run``, but that ``-f`` is for CIDRs here."""
    found = f"{_POLICY_HELP} Default: what the agent of this host follows."
    return policy_option(datastore_options(node_option(command)), found)


def place_of(datastore: str, files: tuple[Path, ...], config: Path | None, emergency: Path | None) -> Place:
    """The datastore of these options. Without ``--policy`` files are those of the agent that runs here, if it answers.

    Raises UsageError if that follows something else.
    """
    from enforcer.datastore.open import FILES, Place

    if datastore == FILES and not files:
        found = _followed_here()
        if (kind := found.get("kind", FILES)) != FILES:
            raise UsageError(f"the agent of this host follows {kind}: use --datastore {kind}, or --policy for files")
        if not (files := tuple(map(Path, found.get("paths", ())))):
            raise UsageError("no agent answers here that says what it follows: give --policy PATH, or --datastore")
        emergency = emergency or (Path(found["emergency"]) if found.get("emergency") else None)
    return Place(datastore, files, config, emergency, option="--policy")


def _followed_here() -> Mapping[str, Any]:
    """The state of the datastore of the agent in this network namespace; {} if none answers."""
    from enforcer.monitor.status_socket import ask

    try:
        state: Mapping[str, Any] = ask()["datastore"]
    except EnforcerError:
        return {}
    return state


def resources_of(
    place: Place, node: str, last_good: Resources | None = None, tell: Callable[[str], None] = warn
) -> Resources:
    """The objects of :func:`loaded_of`."""
    return loaded_of(place, node, last_good, tell).resources


def loaded_of(
    place: Place, node: str, last_good: Resources | None = None, tell: Callable[[str], None] = warn
) -> Loaded:
    """The policy as it is now. What is faulty in it is told, and counts as in ``last_good``, or as the agent of this
    host last stored it; without a good version, not at all.

    Raises as ``read_once``.
    """
    from enforcer.datastore.open import read_once

    loaded = read_once(place, node, last_good)
    for fault in loaded.faults:
        tell(f"{fault.finding}: {fault.outcome}")
    return loaded


def audit(what: str, acts: Iterable[Act], **more: object) -> None:
    """An event in the log of this host (syslog, the journal) for each object. Without a log nothing happens."""
    from enforcer.emergency.times import written

    for act in acts:
        fields: dict[str, object] = {
            "act": act.id,
            "object": act.name,
            "beside": act.beside,
            "until": "for ever" if act.until_s is None else written(act.until_s),
            "cidrs": len(act.nets),
            "nets": ",".join(map(str, act.nets[:20])),
            **more,
        }
        _to_syslog(what, fields)


def _to_syslog(what: str, fields: dict[str, object]) -> None:
    from enforcer.system.log import LineFormatter

    try:
        handler = _Syslog(SYSLOG, facility=SysLogHandler.LOG_AUTHPRIV)
    except OSError:
        return
    handler.setFormatter(LineFormatter(with_time=False))
    record = logging.LogRecord("enforcer", logging.INFO, "", 0, what, None, None)
    record.fields = fields
    handler.handle(record)
    handler.close()


class _Syslog(SysLogHandler):
    ident = "enforcer: "

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """The act is done, and its object says who did it."""


def distrust(resources: Resources) -> str:
    """Why this host's clock does not decide what has ended; "" if it does."""
    from enforcer.emergency.act import is_act
    from enforcer.emergency.expiry import Clock, ClockState, clock_state
    from enforcer.system.clock import boot_s, is_synchronized

    acts = [item for item in resources.global_network_sets if is_act(item)]
    match clock_state(acts, Clock(time.time(), boot_s(), is_synchronized())):
        case ClockState.UNSYNCHRONIZED:
            return "the kernel says that this host's clock is not synchronized (adjtimex)"
        case ClockState.BEHIND:
            return "this host's clock is behind the newest act"
    return ""


def ended_of(resources: Resources, now_s: float) -> Iterator[Act]:
    """The acts that ended more than ten minutes ago by this clock."""
    from enforcer.emergency.act import act_of, is_act

    for item in resources.global_network_sets:
        if is_act(item):
            act = act_of(item)
            if _has_ended(act, now_s):
                yield act


def _has_ended(act: Act, now_s: float) -> bool:
    return act.until_s is not None and act.until_s + _PRUNE_AFTER_S <= now_s


def pruned(writer: Writer, resources: Resources) -> list[Done]:
    """Delete what has ended, unless it was extended meanwhile. Raises as ``commit.remove``."""
    from enforcer.emergency.commit import Outcome, remove

    now_s = time.time()
    done = [remove(writer, act.name, lambda held: _has_ended(held, now_s)) for act in ended_of(resources, now_s)]
    gone = [item for item in done if item.outcome is Outcome.DELETED]
    audit("emergency act pruned", (item.act for item in gone if item.act))
    return gone


def prune_by_the_way(writer: Writer, resources: Resources) -> None:
    """As :func:`pruned`, where this clock can be trusted. A failure is a warning."""
    if distrust(resources):
        return
    try:
        pruned(writer, resources)
    except EnforcerError as error:
        warn(f"what has ended is not deleted yet: {error}")

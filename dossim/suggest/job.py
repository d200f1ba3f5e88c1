"""From captures and a policy to a suggestion, as resources, with where packets end without and with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dossim.drill.situation import Situation
from dossim.packet.capture import Capture
from dossim.suggest.applied import Applied, applied, denied, with_documents, with_endpoint
from dossim.suggest.documents import Names, documents
from dossim.suggest.failsafe import passes
from dossim.suggest.signature import signatures
from dossim.suggest.suggest import Suggestion, Wanted, suggest
from dossim.suggest.tally import Ranges, tally
from dossim.suggest.traffic import Bool, Read, Traffic, read_traffic
from enforcer.emergency.beside import whole_deny_list
from enforcer.emergency.effect import tables_of
from enforcer.emergency.protection import Facts, Protected, protection
from enforcer.model.counted import counted
from enforcer.model.errors import UsageError
from enforcer.model.nets import IPNetwork
from enforcer.policy.resources import FelixConfiguration, Resources

ATTACK, BASELINE = "the attack", "the baseline"
_ASKED = "--protect"


@dataclass(frozen=True)
class Job:
    """``is_attack``: which packets of ``attack`` are the attack; None: all. ``baseline`` None: the others, or if all
    are, nothing is known of legitimate traffic. ``beside``: the deny list to stand beside, "" for the only one.
    """

    attack: Capture
    is_attack: Bool | None
    baseline: Capture | None
    situation: Situation
    budget: int
    limit: float
    name: str
    beside: str = ""
    protect: tuple[IPNetwork, ...] = ()
    only_sources: bool = False

    @property
    def usual(self) -> Capture:
        """The capture that has the baseline, if there is one. (A capture without packets is false.)"""
        return self.attack if self.baseline is None else self.baseline


class AlreadyDenied(Exception):
    """The present policy denies all of the attack."""


@dataclass(frozen=True)
class Done:
    """``ends``: of the packets of the attack, and of the baseline. ``about``: sentences on what was counted."""

    suggestion: Suggestion
    documents: Sequence[Mapping[str, Any]]
    ends: Mapping[str, Applied]
    protected: tuple[str, ...]
    about: tuple[str, ...]


def run(job: Job) -> Done:
    """Raises UsageError where there is nothing to compare, AlreadyDenied where the present policy leaves nothing, and
    HostError where there is no engine.
    """
    own = [item.ip for item in job.situation.host.addresses]
    read = read_traffic(job.attack, own)
    wanted, usual = _divided(job, read, [] if job.baseline is None else [read_traffic(job.baseline, own)])
    wanted, already = _left(job, job.attack, wanted)
    if not len(wanted):
        raise AlreadyDenied(f"{job.attack.path}: the policy denies all {counted(already)} of the attack already")
    if usual is not None:
        usual, _ = _left(job, job.usual, usual)
        if not len(usual):
            raise UsageError(
                "the policy denies all of the baseline, so nothing is known of customers that it lets pass"
            )
    resources = with_endpoint(job.situation.resources, job.situation)
    names, single, sets = _policy(job, resources)
    nets = [item.network for item in single] + [net for found in sets.values() for net in found]
    felix = job.situation.resources.felix_for(job.situation.host.node)
    wanted, passing = _deniable(wanted, felix)
    usual, usually = (None, 0) if usual is None else _deniable(usual, felix)
    telling = () if usual is None or job.only_sources else signatures(wanted, usual)
    suggestion = suggest(
        tally(wanted, telling, passing),
        None if usual is None else tally(usual, telling, usually),
        Wanted(job.budget, job.limit, Ranges(nets), telling),
    )
    made = documents(suggestion.suggested, names, nets)
    return Done(
        suggestion,
        made,
        _ends(job, resources, made, wanted, usual) if made else {},
        (*(f"{item.network}: {item.what}" for item in single), *sets),
        (*_about(read, already, passing), *_assumed(job)),
    )


def _divided(job: Job, read: Read, baseline: Sequence[Read]) -> tuple[Traffic, Traffic | None]:
    """The attack and the baseline."""
    attack, usual = read.traffic, baseline[0].traffic if baseline else None
    if job.is_attack is not None:
        mine = job.is_attack[attack.packet]
        attack, usual = attack.where(mine), attack.where(~mine) if usual is None else usual
    if not len(attack):
        raise UsageError(f"{job.attack.path}: no packet of it is the attack, so there is nothing to block")
    if usual is not None and not len(usual):
        where = (
            f"{job.baseline.path}: has" if job.baseline is not None else f"{job.attack.path}: besides the attack it has"
        )
        raise UsageError(f"{where} no received IP packets, so nothing is known of customers; use --baseline CAPTURE")
    return attack, usual


def _left(job: Job, capture: Capture, traffic: Traffic) -> tuple[Traffic, int]:
    """What the present policy does not deny, and the number of the other packets."""
    mine = denied(capture, job.situation)[traffic.packet]
    return traffic.where(~mine), int(mine.sum())


def _deniable(traffic: Traffic, felix: FelixConfiguration) -> tuple[Traffic, int]:
    """What a list can deny, and the number of the other packets."""
    passing = passes(traffic, felix)
    return traffic.where(~passing), int(passing.sum())


def _policy(job: Job, resources: Resources) -> tuple[Names, list[Protected], Mapping[str, Sequence[IPNetwork]]]:
    """What the list is called and labelled, and what is protected: single networks, and sets by what they are."""
    tables = list(tables_of(resources)[0])
    beside = whole_deny_list(resources, tables, job.beside)
    own = [(item.ip, "an address of the host") for item in job.situation.host.addresses]
    found = protection(resources, tables, Facts(own))
    single = [*found.single, *(Protected(net, _ASKED) for net in job.protect)]
    return (
        Names(job.name, beside.labels if beside else {}),
        single,
        {what: list(nets) for what, nets in found.sets.items()},
    )


def _ends(
    job: Job, resources: Resources, made: list[dict[str, Any]], wanted: Traffic, usual: Traffic | None
) -> Mapping[str, Applied]:
    now, after = replace(job.situation, resources=resources), with_documents(resources, made, job.name)
    found = {ATTACK: applied(job.attack, wanted.packet, now, after)}
    if usual is not None:
        found[BASELINE] = applied(job.usual, usual.packet, now, after)
    return found


def _assumed(job: Job) -> list[str]:
    resources, interface = job.situation.resources, job.situation.host.interface
    if resources.host_endpoints or resources == Resources():
        return []
    return [f"the policy has no HostEndpoint, and denies nothing without one: predicted as if {interface} had one"]


def _about(read: Read, already: int, passing: int) -> list[str]:
    found = []
    if read.sent:
        found.append(f"{counted(read.sent)} that the host sent: left out")
    if read.other:
        found.append(f"{counted(read.other)} without a complete IP header: left out")
    if already:
        found.append(f"{counted(already)} of the attack that the policy denies already: left out")
    if passing:
        found.append(
            f"{counted(passing)} of the attack to or from failsafe ports: no untracked policy denies them "
            "(failsafeInboundHostPorts and failsafeOutboundHostPorts of the FelixConfiguration)"
        )
    return found

"""Host facts as a table and as data: the answer of each interface for each XDP mode, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from enforcer.cli.console import line
from enforcer.model.vocabulary import Answer, Mode, Stage
from enforcer.planning.raw_choice import detected

if TYPE_CHECKING:
    from rich.console import Console

    from enforcer.model.conntrack import ConntrackFacts
    from enforcer.model.facts import HostFacts, InterfaceFacts, Probe

SCHEMA = "enforcer/probe/v1"


def facts_as_dict(facts: HostFacts) -> dict[str, Any]:
    """The facts as JSON data."""
    return {
        "schema": SCHEMA,
        "node": facts.node,
        "kernel": facts.kernel,
        "host_rules": {
            "iptables": facts.rules.legacy,
            "nftables": facts.rules.nft,
            "kubernetes": facts.rules.kubernetes and str(facts.rules.kubernetes),
        },
        "backends": {str(backend): _probe_as_dict(probe) for backend, probe in facts.backends.items()},
        "conntrack": _conntrack_as_dict(facts.conntrack),
        "interfaces": [_interface_as_dict(item) for item in facts.interfaces],
    }


def print_facts(facts: HostFacts, console: Console) -> None:
    """One line for each interface, then the reason of each answer that is not yes."""
    console.print(line(f"kernel {facts.kernel}"), soft_wrap=True)
    for backend, probe in facts.backends.items():
        console.print(line(f"raw table through {backend}: {_sentence(probe)}"), soft_wrap=True)
    where, why = detected(facts.rules)
    console.print(line(f"default raw backend: {where}: {why}"), soft_wrap=True)
    for text in conntrack_lines(facts.conntrack):
        console.print(line(text), soft_wrap=True)
    table = Table("interface", "driver", "mtu", *map(str, Mode), box=None, pad_edge=False, header_style="dim")
    for item in facts.interfaces:
        answers = [str(item.modes[mode].answer) if mode in item.modes else "not probed" for mode in Mode]
        table.add_row(*map(line, (item.name, item.driver or "-", str(item.mtu), *answers)))
    console.print(table)
    for item in facts.interfaces:
        for mode, probe in item.modes.items():
            if probe.reason:
                console.print(line(f"{item.name} {mode}: {_sentence(probe)}"), soft_wrap=True)
        if item.netdev_ingress.answer is Answer.NO:
            console.print(line(f"{item.name} {Stage.NETDEV_INGRESS}: {_sentence(item.netdev_ingress)}"), soft_wrap=True)


def conntrack_lines(facts: ConntrackFacts) -> list[str]:
    """The table's limits in one line, then what could not be read, one line each."""
    known = [f"{facts.max:,} entries at most"] if facts.max is not None else []
    known += [f"{facts.count:,} in use"] if facts.count is not None else []
    known += [f"{facts.buckets:,} buckets"] if facts.buckets is not None else []
    if facts.statistics is not None:
        known += [f"{facts.statistics.dropped:,} packets dropped and {facts.statistics.early_drop:,} entries evicted"]
    known += [f"helpers: {', '.join(facts.helpers)}"] if facts.helpers else []
    known += [f"zones: {', '.join(map(str, facts.zones))}"] if facts.zones else []
    lines = [f"conntrack: {', '.join(known)}"] if known else []
    return lines + [f"conntrack: cannot tell: {text}" for text in facts.unknown]


def _conntrack_as_dict(facts: ConntrackFacts) -> dict[str, Any]:
    """``null``: could not be read; ``unknown`` says why. Timeouts in seconds."""
    return {
        "max": facts.max,
        "buckets": facts.buckets,
        "count": facts.count,
        "checksum": facts.checksum,
        "tcp_loose": facts.tcp_loose,
        "tcp_be_liberal": facts.tcp_be_liberal,
        "timeouts_s": {str(item): value for item, value in facts.timeouts.items()},
        "helpers": None if facts.helpers is None else list(facts.helpers),
        "zones": None if facts.zones is None else list(facts.zones),
        "statistics": None if facts.statistics is None else vars(facts.statistics),
        "unknown": list(facts.unknown),
    }


def _sentence(probe: Probe) -> str:
    return f"{probe.answer}: {probe.reason}" if probe.reason else str(probe.answer)


def _probe_as_dict(probe: Probe) -> dict[str, str]:
    return {"answer": str(probe.answer), "reason": probe.reason}


def _interface_as_dict(item: InterfaceFacts) -> dict[str, Any]:
    return {
        "name": item.name,
        "index": item.index,
        "alternative_names": list(item.alternative_names),
        "driver": item.driver,
        "mtu": item.mtu,
        "addresses": [str(address) for address in item.addresses],
        "gateways": [str(address) for address in item.gateways],
        "modes": {str(mode): _probe_as_dict(probe) for mode, probe in item.modes.items()},
        "foreign_xdp": item.foreign_xdp,
        "netdev_ingress": _probe_as_dict(item.netdev_ingress),
    }

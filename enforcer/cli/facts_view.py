"""Host facts as a table and as data: the answer of each interface for each XDP mode, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from enforcer.cli.console import line
from enforcer.model.vocabulary import Answer, Mode, Stage
from enforcer.planning.raw_choice import detected

if TYPE_CHECKING:
    from rich.console import Console

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
        "interfaces": [_interface_as_dict(item) for item in facts.interfaces],
    }


def print_facts(facts: HostFacts, console: Console) -> None:
    """One line for each interface, then the reason of each answer that is not yes."""
    console.print(line(f"kernel {facts.kernel}"), soft_wrap=True)
    for backend, probe in facts.backends.items():
        console.print(line(f"raw table through {backend}: {_sentence(probe)}"), soft_wrap=True)
    where, why = detected(facts.rules)
    console.print(line(f"default raw backend: {where}: {why}"), soft_wrap=True)
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

"""HostFacts from a file: what ``enforcer probe -o yaml`` (or json) printed on the host in question."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from enforcer.errors import UsageError
from enforcer.facts import HostFacts, HostRules, InterfaceFacts, Probe
from enforcer.words import Answer, Backend, Mode

# YAML 1.1 tools write yes and no as booleans.
_ANSWERS = {True: Answer.YES, False: Answer.NO} | {str(answer): answer for answer in Answer}


def read_facts(path: Path) -> HostFacts:
    """The facts in a file. Raises UsageError saying what is missing or wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return facts_from_dict(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: not the output of 'enforcer probe -o yaml': {_why(error)}") from error


def facts_from_dict(data: Mapping[str, Any]) -> HostFacts:
    """The inverse of :func:`enforcer.facts_view.facts_as_dict`. Raises what reading wrong data raises."""
    return HostFacts(
        node=data["node"],
        kernel=data.get("kernel", ""),
        rules=HostRules(*(data.get("host_rules", {}).get(name, 0) for name in ("iptables", "nftables"))),
        backends={Backend(name): _probe(answer) for name, answer in data.get("backends", {}).items()},
        interfaces=tuple(_interface(item) for item in data["interfaces"]),
    )


def _interface(item: Mapping[str, Any]) -> InterfaceFacts:
    return InterfaceFacts(
        name=item["name"],
        index=item.get("index", 0),
        driver=item.get("driver", ""),
        mtu=item.get("mtu", 1500),
        addresses=tuple(ip_address(text) for text in item.get("addresses", ())),
        modes={Mode(name): _probe(answer) for name, answer in item.get("modes", {}).items()},
        alternative_names=tuple(item.get("alternative_names", ())),
        foreign_xdp=item.get("foreign_xdp", ""),
        gateways=tuple(ip_address(text) for text in item.get("gateways", ())),
        netdev_ingress=_probe(item["netdev_ingress"])
        if "netdev_ingress" in item
        else InterfaceFacts("").netdev_ingress,
    )


def _probe(answer: Mapping[str, Any]) -> Probe:
    return Probe(_ANSWERS[answer["answer"]], answer.get("reason", ""))


def _why(error: Exception) -> str:
    return f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)

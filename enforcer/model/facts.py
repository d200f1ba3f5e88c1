"""HostFacts: what is known about a host before planning. Values only; :mod:`enforcer.kernel.probe` creates them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enforcer.model.conntrack import NOT_PROBED, ConntrackFacts
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Answer, Backend, Mode


@dataclass(frozen=True)
class Probe:
    """An answer and its reason. ``plan`` and ``status`` print the reason of a NO or UNKNOWN verbatim.

    ``temporary``: the host had run out of descriptors or memory, so that the next probe may answer.
    """

    answer: Answer
    reason: str = ""
    temporary: bool = False


@dataclass(frozen=True)
class InterfaceFacts:
    """One interface. ``modes`` holds a probe for each XDP mode; ``addresses`` are those configured on it, ``gateways``
    the next hops of routes that leave by it.

    ``alternative_names``: other names of the interface (``ip link property``), which HostEndpoints may use.

    ``foreign_xdp``: a foreign XDP program ("" if there is none), which is never touched.
    ``unseen``: why it is unknown whether an interface of another network namespace takes its packets.
    ``netdev_ingress``: whether an nf_tables chain may drop what this interface receives, if the host has nf_tables.
    """

    name: str
    index: int = 0
    driver: str = ""
    mtu: int = 1500
    addresses: tuple[IPAddress, ...] = ()
    modes: Mapping[Mode, Probe] = field(default_factory=dict)
    foreign_xdp: str = ""
    gateways: tuple[IPAddress, ...] = ()
    alternative_names: tuple[str, ...] = ()
    unseen: str = ""
    netdev_ingress: Probe = Probe(Answer.UNKNOWN, "not probed")


@dataclass(frozen=True)
class HostRules:
    """How many foreign rules are in legacy tables and in nf_tables, and which of the two Kubernetes uses, if any."""

    legacy: int = 0
    nft: int = 0
    kubernetes: Backend | None = None


@dataclass(frozen=True)
class HostFacts:
    node: str
    kernel: str = ""
    interfaces: tuple[InterfaceFacts, ...] = ()
    backends: Mapping[Backend, Probe] = field(default_factory=dict)
    rules: HostRules = HostRules()
    conntrack: ConntrackFacts = NOT_PROBED

    def interface(self, name: str) -> InterfaceFacts | None:
        return next((item for item in self.interfaces if item.name == name), None)

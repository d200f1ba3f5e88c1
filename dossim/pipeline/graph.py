"""The pipeline as a graph: nodes are Stages and Fates, an edge has its condition, a stage has its check.

``explain`` walks it, ``plan --format mermaid,dot`` prints it.
"""

from __future__ import annotations

import re

import networkx as nx

from dossim.model.disposition import OPEN_FATES, Fate
from dossim.pipeline import hooks, ip_input, netdev, route, tracked_hooks, transport
from dossim.pipeline.stages import Check, Edge, Node
from dossim.pipeline.xdp import xdp_check
from enforcer.model.vocabulary import Stage

START = Stage.NIC_OFFLOAD

CHECKS: dict[Stage, Check] = {
    Stage.NIC_OFFLOAD: xdp_check(Stage.NIC_OFFLOAD, Stage.DRIVER),
    Stage.DRIVER: xdp_check(Stage.DRIVER, Stage.GENERIC),
    Stage.GENERIC: xdp_check(Stage.GENERIC, Stage.NETDEV_INGRESS),
    Stage.NETDEV_INGRESS: netdev.check,
    Stage.IP_INPUT: ip_input.check,
    Stage.DEFRAG: hooks.check_defrag,
    Stage.RAW: hooks.check_raw,
    Stage.CONNTRACK: tracked_hooks.check_conntrack,
    Stage.MANGLE: tracked_hooks.check_mangle,
    Stage.NAT: hooks.passing(Stage.ROUTE, "nat PREROUTING", untracked="no NAT without connection tracking"),
    Stage.ROUTE: route.check,
    Stage.FILTER_INPUT: tracked_hooks.check_filter_input,
    Stage.FILTER_FORWARD: tracked_hooks.check_filter_forward,
    Stage.SOCKET: transport.check,
    Stage.EGRESS: hooks.passing(Fate.FORWARDED, "POSTROUTING"),
}

EDGES = (
    Edge(Stage.NIC_OFFLOAD, Stage.DRIVER, "not offloaded, or undetermined"),
    Edge(Stage.NIC_OFFLOAD, Fate.DROPPED, "offloaded, and an entry denies it"),
    Edge(Stage.DRIVER, Stage.GENERIC, "no native XDP, or undetermined"),
    Edge(Stage.DRIVER, Fate.DROPPED, "native XDP, and an entry denies it"),
    Edge(Stage.GENERIC, Stage.NETDEV_INGRESS, "no generic XDP, or undetermined"),
    Edge(Stage.GENERIC, Fate.DROPPED, "generic XDP, and an entry denies it"),
    Edge(Stage.NETDEV_INGRESS, Stage.IP_INPUT, "no chain of ours, or undetermined"),
    Edge(Stage.NETDEV_INGRESS, Fate.DROPPED, "a chain of ours, and an entry denies it"),
    Edge(Stage.IP_INPUT, Stage.DEFRAG, "sound IPv4 or IPv6 header"),
    Edge(Stage.IP_INPUT, Fate.DELIVERED, "ARP"),
    Edge(Stage.IP_INPUT, Fate.DROPPED, "malformed header, another host's, or no handler"),
    Edge(Stage.DEFRAG, Stage.RAW, "no fragment, or its datagram is complete"),
    Edge(Stage.DEFRAG, Fate.DROPPED, "its datagram stays incomplete or is inconsistent"),
    Edge(Stage.RAW, Stage.CONNTRACK, "failsafe, Allow, Pass, or no entry matches"),
    Edge(Stage.RAW, Fate.DROPPED, "an entry denies it, or it is too short for one to be evaluated"),
    Edge(Stage.CONNTRACK, Stage.MANGLE, "in any state"),
    Edge(Stage.CONNTRACK, Fate.DROPPED, "the table is full, or the entry clashes with another"),
    Edge(Stage.MANGLE, Stage.NAT, "established, allowed, or no preDNAT policy decides"),
    Edge(Stage.MANGLE, Fate.DROPPED, "INVALID, or preDNAT policy denies it"),
    Edge(Stage.NAT, Stage.ROUTE, "always"),
    Edge(Stage.ROUTE, Stage.FILTER_INPUT, "for this host"),
    Edge(Stage.ROUTE, Stage.FILTER_FORWARD, "for another host, and forwarding is on"),
    Edge(Stage.ROUTE, Fate.DROPPED, "martian, no route, TTL or MTU exceeded, bad options"),
    Edge(Stage.FILTER_INPUT, Stage.SOCKET, "established, failsafe, allowed, or no HostEndpoint"),
    Edge(Stage.FILTER_INPUT, Fate.DROPPED, "INVALID, or policy denies it or does not allow it"),
    Edge(Stage.FILTER_FORWARD, Stage.EGRESS, "established, allowed, or no policy for forwarded packets"),
    Edge(Stage.FILTER_FORWARD, Fate.DROPPED, "INVALID, or policy for forwarded packets denies it"),
    Edge(Stage.SOCKET, Fate.DELIVERED, "reached its transport"),
    Edge(Stage.SOCKET, Fate.DROPPED, "malformed for its transport"),
    Edge(Stage.EGRESS, Fate.FORWARDED, "always"),
)


def pipeline_graph() -> nx.DiGraph:
    """The graph. Stage nodes have the attribute ``check``, edges ``condition``."""
    graph = nx.DiGraph()
    graph.add_nodes_from((stage, {"check": check}) for stage, check in CHECKS.items())
    graph.add_nodes_from(fate for fate in Fate if fate not in OPEN_FATES)  # not fates in a kernel
    graph.add_edges_from((edge.source, edge.target, {"condition": edge.condition}) for edge in EDGES)
    return graph


def to_mermaid(graph: nx.DiGraph) -> str:
    """The graph as a Mermaid flowchart, from top to bottom."""
    lines = ["flowchart TD"]
    lines += [f"    {_identifier(node)}{_mermaid_shape(node)}" for node in graph]
    for source, target, condition in graph.edges(data="condition"):
        lines.append(f'    {_identifier(source)} -->|"{condition}"| {_identifier(target)}')
    return "\n".join(lines) + "\n"


def to_dot(graph: nx.DiGraph) -> str:
    """The graph in Graphviz's language."""
    lines = ["digraph pipeline {", "    rankdir=TB;", "    node [shape=box];"]
    lines += [f'    "{node}" [shape=ellipse];' for node in graph if isinstance(node, Fate)]
    for source, target, condition in graph.edges(data="condition"):
        lines.append(f'    "{source}" -> "{target}" [label="{condition}"];')
    return "\n".join([*lines, "}"]) + "\n"


def _identifier(node: Node) -> str:
    return re.sub(r"\W", "_", str(node))


def _mermaid_shape(node: Node) -> str:
    return f'(["{node}"])' if isinstance(node, Fate) else f'["{node}"]'

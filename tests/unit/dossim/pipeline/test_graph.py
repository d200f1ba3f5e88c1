"""The pipeline graph: complete, acyclic, and printed as valid Mermaid and Graphviz."""

from __future__ import annotations

import networkx as nx

from dossim.model.disposition import OPEN_FATES, Fate
from dossim.pipeline.graph import START, pipeline_graph, to_dot, to_mermaid
from enforcer.model.vocabulary import Stage


def test_every_stage_and_fate_is_a_node_and_can_be_reached() -> None:
    graph = pipeline_graph()
    ends = set(Fate) - set(OPEN_FATES)  # not paths through the kernel
    assert set(graph) == {*Stage, *ends}
    assert nx.descendants(graph, START) == {*Stage, *ends} - {START}
    assert nx.is_directed_acyclic_graph(graph)


def test_stages_lead_on_and_fates_do_not() -> None:
    graph = pipeline_graph()
    assert all(graph.out_degree(stage) and callable(graph.nodes[stage]["check"]) for stage in Stage)
    assert not any(graph.out_degree(fate) for fate in Fate if fate in graph)


def test_every_edge_says_when_it_is_taken() -> None:
    assert all(condition for _, _, condition in pipeline_graph().edges(data="condition"))


def test_stages_stand_in_the_order_packets_meet_them() -> None:
    order = list(Stage)
    stage_edges = [(a, b) for a, b in pipeline_graph().edges if isinstance(b, Stage)]
    assert all(order.index(a) < order.index(b) for a, b in stage_edges)


def test_packets_are_dropped_at_every_stage_but_nat_and_egress() -> None:
    graph = pipeline_graph()
    assert {stage for stage in Stage if not graph.has_edge(stage, Fate.DROPPED)} == {Stage.NAT, Stage.EGRESS}


def test_mermaid() -> None:
    lines = to_mermaid(pipeline_graph()).splitlines()
    assert lines[0] == "flowchart TD"
    assert '    ip_input["ip-input"]' in lines
    assert '    dropped(["dropped"])' in lines
    assert '    ip_input -->|"ARP"| delivered' in lines
    assert '    mangle -->|"INVALID, or preDNAT policy denies it"| dropped' in lines


def test_dot() -> None:
    text = to_dot(pipeline_graph())
    assert text.startswith("digraph pipeline {")
    assert text.endswith("}\n")
    assert '"ip-input" -> "delivered" [label="ARP"];' in text
    assert '"conntrack" -> "dropped" [label="the table is full, or the entry clashes with another"];' in text
    assert '"dropped" [shape=ellipse];' in text

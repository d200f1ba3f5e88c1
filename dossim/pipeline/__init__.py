"""What the kernel does with a packet: the pipeline as a graph, and ``explain``, which walks it from the resources."""

from __future__ import annotations

from dossim.pipeline.explain import Explainer, Hop, Trace
from dossim.pipeline.graph import pipeline_graph, to_dot, to_mermaid

__all__ = ["Explainer", "Hop", "Trace", "pipeline_graph", "to_dot", "to_mermaid"]

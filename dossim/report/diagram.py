"""The pipeline as a drawing: the positions of its nodes and edges, and how many packets took each. Pure.

Nodes and edges are those of :mod:`dossim.pipeline.graph`; only positions are decided here. Packets are counted where
they ended; those that passed a node are those that ended after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dossim.model.disposition import Fate
from dossim.pipeline.graph import EDGES
from dossim.pipeline.stages import Node
from dossim.report.view import GLOSS, View
from enforcer.model.vocabulary import Stage

STEP, WIDTH, HEIGHT = 110, 94, 34
_TOP, _UPPER, _LOWER = 62, 30, 106
_SPINE = (
    Stage.NIC_OFFLOAD, Stage.DRIVER, Stage.GENERIC, Stage.NETDEV_INGRESS, Stage.IP_INPUT, Stage.DEFRAG,
    Stage.RAW, Stage.CONNTRACK, Stage.MANGLE, Stage.NAT, Stage.ROUTE,
)  # fmt: skip
_LOCAL: tuple[Node, ...] = (Stage.FILTER_INPUT, Stage.SOCKET, Fate.DELIVERED)
_AWAY: tuple[Node, ...] = (Stage.FILTER_FORWARD, Stage.EGRESS, Fate.FORWARDED)

PLACES: Mapping[Node, tuple[int, int]] = {
    **{node: (STEP * at, _TOP + 6) for at, node in enumerate(_SPINE)},
    **{node: (STEP * (len(_SPINE) + at), _UPPER) for at, node in enumerate(_LOCAL)},
    **{node: (STEP * (len(_SPINE) + at), _LOWER) for at, node in enumerate(_AWAY)},
}


@dataclass(frozen=True)
class Box:
    """``dropped`` packets were dropped here, ``ended`` packets were delivered or forwarded here. ``enforcing``: the
    policy has entries here.
    """

    name: str
    gloss: str
    x: int
    y: int
    dropped: int
    ended: int
    enforcing: bool
    is_fate: bool


@dataclass(frozen=True)
class Line:
    """An edge; ``width`` shows the share of all packets that took it, 0 for none."""

    path: str
    packets: int
    width: float
    condition: str


@dataclass(frozen=True)
class Diagram:
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: int = STEP * (len(_SPINE) + len(_LOCAL)) - (STEP - WIDTH) + 2
    height: int = 176


def diagram(view: View) -> Diagram:
    """The drawing of one result: of the observation if there is one, else of the prediction."""
    ended = {row.word: row.predicted if row.observed is None else row.observed for row in view.stages}
    enforcing = {stage for row in view.entries for stage in row.stages}
    boxes = tuple(_box(node, ended.get(str(node), 0), enforcing) for node in PLACES)
    return Diagram(boxes, tuple(_lines(ended, view.packets)))


def _box(node: Node, ended: int, enforcing: set[str]) -> Box:
    fate = isinstance(node, Fate)
    x, y = PLACES[node]
    return Box(
        str(node), GLOSS[str(node)], x, y, 0 if fate else ended, ended if fate else 0, str(node) in enforcing, fate
    )


def _lines(ended: Mapping[str, int], packets: int) -> Iterator[Line]:
    for edge in EDGES:
        if edge.target is Fate.DROPPED:
            continue  # shown below the box
        count = _passing(edge.source, edge.target, ended)
        yield Line(_path(edge.source, edge.target), count, _width(count, packets), edge.condition)


def _passing(source: Node, target: Node, ended: Mapping[str, int]) -> int:
    """Packets that took an edge: those that ended at its target or later. ARP's direct edge is not distinguished."""
    if (source, target) == (Stage.IP_INPUT, Fate.DELIVERED):
        return 0
    downstream = next(lane[lane.index(target) :] for lane in (_SPINE, _LOCAL, _AWAY) if target in lane)
    if target in _SPINE:
        downstream = (*downstream, *_LOCAL, *_AWAY)
    return sum(ended.get(str(node), 0) for node in downstream)


def _width(count: int, packets: int) -> float:
    return round(1.5 + 6.5 * count / packets, 1) if count and packets else 0


def _path(source: Node, target: Node) -> str:
    """From the right side of one box to the left side of the other; ARP's direct edge is drawn above all boxes."""
    (x1, y1), (x2, y2) = PLACES[source], PLACES[target]
    start, end, middle = x1 + WIDTH, x2, HEIGHT // 2
    if (source, target) == (Stage.IP_INPUT, Fate.DELIVERED):
        above, x3 = f"M{x1 + WIDTH // 2},{y1} C{x1 + WIDTH},8 {x1 + 2 * WIDTH},8 {x1 + 3 * WIDTH},8", x2 + WIDTH // 2
        return f"{above} H{x2 - WIDTH} C{x2},8 {x3},8 {x3},{y2}"
    if y1 == y2:
        return f"M{start},{y1 + middle} H{end}"
    bend = (start + end) // 2
    return f"M{start},{y1 + middle} C{bend},{y1 + middle} {bend},{y2 + middle} {end},{y2 + middle}"


assert set(PLACES) == {*Stage, Fate.DELIVERED, Fate.FORWARDED}, "every node of the graph has a place"

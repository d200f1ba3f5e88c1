"""Traffic of a scenario as one capture whose packets keep the label of the row they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dossim.errors import ScenarioError
from dossim.packet.capture import Capture, read_capture
from dossim.scenario.budget import DEFAULT, Budget, Exceeded, Limits
from dossim.scenario.generate import Destinations, generate
from dossim.scenario.model import CaptureTraffic, GeneratedTraffic, Traffic


@dataclass(frozen=True)
class LabelledCapture:
    """``label_of[i]`` is the index into ``labels`` of packet i's label."""

    capture: Capture
    labels: tuple[str, ...]
    label_of: npt.NDArray[np.uint16]

    def having(self, label: str | None) -> npt.NDArray[np.bool_]:
        """Which packets carry the label; all for None."""
        if label is None:
            return np.ones(len(self.capture), np.bool_)
        return np.asarray(self.label_of == self.labels.index(label), np.bool_)


def build_traffic(
    rows: Sequence[Traffic], destinations: Destinations, *, path: str, limits: Limits = DEFAULT
) -> LabelledCapture:
    """All rows interleaved evenly, each in its own order. ``destinations`` are the host's, by IP version.

    Raises ScenarioError for more packets or bytes than the limits allow.
    """
    budget = Budget(limits)
    labels = tuple(dict.fromkeys(row.label for row in rows))
    parts = [_frames(row, destinations, number, budget) for number, row in enumerate(rows)]
    label_of_row = np.array([labels.index(row.label) for row in rows], np.uint16)
    row_of, place = _places([len(part) for part in parts])
    order = np.argsort(place, kind="stable")
    frames = [frame for part in parts for frame in part]
    capture = Capture.from_frames((frames[index] for index in order), path=path)
    return LabelledCapture(capture, labels, label_of_row[row_of[order]])


def _places(lengths: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each frame, rows one after the other: its row, and where between 0 and 1 it comes."""
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    place = [(np.arange(length) + 0.5) / max(length, 1) for length in lengths]
    return row_of, np.concatenate(place)


def _frames(row: Traffic, destinations: Destinations, number: int, budget: Budget) -> list[bytes]:
    if isinstance(row, CaptureTraffic):
        capture = capture_of(row, budget)
        return [capture.frame(index) for index in range(len(capture))]
    _require_destinations(row, destinations)
    try:
        return generate(row, destinations, row=number, budget=budget)
    except Exceeded as error:
        raise ScenarioError(f"{row.position}: {error}") from None


def capture_of(row: CaptureTraffic, budget: Budget) -> Capture:
    """The capture of a row. Raises CaptureError, or ScenarioError for more than the budget allows."""
    capture = read_capture(row.path)
    try:
        budget.take(len(capture), int(capture.length.sum(dtype=np.int64)))
    except Exceeded as error:
        raise ScenarioError(f"{row.position}: {error}") from None
    return capture


def _require_destinations(row: GeneratedTraffic, destinations: Destinations) -> None:
    missing = missing_destination(row, destinations)
    if missing:
        raise ScenarioError(f"{row.position}: {missing}")


def missing_destination(row: GeneratedTraffic, destinations: Destinations) -> str:
    """What is missing to send to, as a sentence; "" when nothing is."""
    if row.parameters.destination or row.parameters.packet:
        return ""
    for version in sorted({source.version for source in row.parameters.sources}):
        if version not in destinations:
            return f"the host has no IPv{version} address; add one to host.addresses, or a destination here"
    return ""

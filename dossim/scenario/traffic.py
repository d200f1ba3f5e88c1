"""The traffic of a scenario as one capture whose packets keep the label of their row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dossim.model.errors import ScenarioError
from dossim.packet.capture import Capture, Reading, concat, read_capture
from dossim.packet.cut import LARGEST
from dossim.scenario.budget import ALLOW_LARGE, DEFAULT, LARGE, Budget, Exceeded, Limits
from dossim.scenario.generate import Destinations, generate
from dossim.scenario.model import CaptureTraffic, GeneratedTraffic, Traffic

_RECORD = 64  # bytes of a file per packet besides its data: the headers of a pcap or pcapng record, and short options


@dataclass(frozen=True)
class LabelledCapture:
    """``label_of[i]`` is the index into ``labels`` of packet i's label. A recorded packet keeps the length it had on
    the wire and its number in its file.
    """

    capture: Capture
    labels: tuple[str, ...]
    label_of: npt.NDArray[np.uint16]
    recorded: npt.NDArray[np.bool_] | None = None  # packets from a capture; the others are generated

    def having(self, label: str | None) -> npt.NDArray[np.bool_]:
        """The packets with the label; None for all."""
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
    parts = [_part(row, destinations, number, budget) for number, row in enumerate(rows)]
    label_of_row = np.array([labels.index(row.label) for row in rows], np.uint16)
    row_of, place = _places([len(part) for part in parts])
    order = np.argsort(place, kind="stable")
    together = replace(concat(parts, path), record=np.concatenate([part.record for part in parts]))
    capture = reordered(together, order)
    is_recorded = np.array([isinstance(row, CaptureTraffic) for row in rows], np.bool_)
    return LabelledCapture(capture, labels, label_of_row[row_of[order]], is_recorded[row_of[order]])


def _places(lengths: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each frame, row by row: its row, and its position between 0 and 1."""
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    place = [(np.arange(length) + 0.5) / max(length, 1) for length in lengths]
    return row_of, np.concatenate(place)


def reordered(capture: Capture, order: npt.NDArray[np.int64]) -> Capture:
    """The same packets in another order, a microsecond apart."""
    return replace(
        capture,
        offset=capture.offset[order],
        length=capture.length[order],
        wire_length=capture.wire_length[order],
        record=capture.record[order],
        timestamp_ns=np.arange(len(capture), dtype=np.int64) * 1000,
    )


def _part(row: Traffic, destinations: Destinations, number: int, budget: Budget) -> Capture:
    if isinstance(row, CaptureTraffic):
        return capture_of(row, budget)
    _require_destinations(row, destinations)
    try:
        return Capture.from_frames(generate(row, destinations, row=number, budget=budget))
    except Exceeded as error:
        raise ScenarioError(f"{row.position}: {error}") from None


def capture_of(row: CaptureTraffic, budget: Budget) -> Capture:
    """The capture of a row. Raises CaptureError, or ScenarioError for more than the budget allows: a drill sends cut
    packets at their length on the wire.
    """
    capture = read_capture(row.path, _reading(row, budget.limits))
    wire_length = np.minimum(np.maximum(capture.wire_length, capture.length), LARGEST)
    try:
        budget.take(len(capture), int(wire_length.sum(dtype=np.int64)))
    except Exceeded as error:
        raise ScenarioError(f"{row.position}: {error}") from None
    return capture


def _reading(row: CaptureTraffic, limits: Limits) -> Reading:
    """How a capture file is read: at most the size of the allowed packets with their record headers."""
    most = limits.total_bytes + _RECORD * limits.packets
    wanted = row.max_size
    if wanted is not None and (wanted <= most or limits == LARGE):
        why, more = f"the max-size of {row.position}", "a larger one"
    elif limits == LARGE:
        return Reading(skip_unknown=row.skip_unknown)
    else:
        wanted, why, more = most, "the most for a scenario", ALLOW_LARGE
    return Reading(max_size=wanted, why=why, more=more, skip_unknown=row.skip_unknown)


def _require_destinations(row: GeneratedTraffic, destinations: Destinations) -> None:
    missing = missing_destination(row, destinations)
    if missing:
        raise ScenarioError(f"{row.position}: {missing}")


def missing_destination(row: GeneratedTraffic, destinations: Destinations) -> str:
    """Which destination is missing, as a sentence; "" if none is."""
    if row.parameters.destination or row.parameters.packet:
        return ""
    for version in sorted({source.version for source in row.parameters.sources}):
        if version not in destinations:
            return f"the host has no IPv{version} address; add one to host.addresses, or a destination here"
    return ""

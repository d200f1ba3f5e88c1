"""Turns a document that the schema accepts into values (:mod:`dossim.scenario.model`), and checks what no schema can
express.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from ipaddress import ip_address, ip_interface, ip_network
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from dossim.model.disposition import Fate
from dossim.model.errors import PacketError
from dossim.model.host import listener
from dossim.packet.source import size
from dossim.scenario.confine import Confinement, Outside
from dossim.scenario.expression import ExpressionError, parse_expression
from dossim.scenario.findings import Marks, Step, did_you_mean
from dossim.scenario.model import (
    Bounds,
    CaptureTraffic,
    ConntrackExpectation,
    ConntrackTableExpectation,
    EntryExpectation,
    Expectation,
    GeneratedTraffic,
    Generator,
    HostDescription,
    LeaveOut,
    PacketExpectation,
    Parameters,
    Ports,
    Traffic,
)
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.model.errors import Finding, Position
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import CtState, Stage
from enforcer.policy.resources import PortRange
from enforcer.policy.values import PORT_MAX

T = TypeVar("T")
Steps = tuple[Step, ...]


class Reader:
    """Reads the parts of one document; ``findings`` collects what is wrong with them."""

    def __init__(self, path: Path, document: Mapping[str, Any], marks: Marks, confined: Confinement) -> None:
        self._folder = path.parent
        self._confined = confined
        self._document = document
        self._marks = marks
        self.findings: list[Finding] = []

    def fault(self, steps: Steps, message: str) -> None:
        self.findings.append(self._marks.finding(steps, message))

    # --- host -----------------------------------------------------------------------------------------------------

    def host(self) -> HostDescription:
        given = self._document.get("host", {})
        return HostDescription(
            node=given.get("node"),
            interface=given.get("interface"),
            addresses=self._each(("host", "addresses"), given.get("addresses", ()), ip_interface),
            forward=given.get("forward", False),
            routes=self._each(("host", "routes"), given.get("routes", ()), ip_network),
            listen=self._each(("host", "listen"), given.get("listen", ()), listener),
            rp_filter=given.get("rp_filter", 0),
            mtu=given.get("mtu", 1500),
        )

    def modes(self) -> tuple[ModeChoice, ...]:
        return tuple(ModeChoice(word) for word in self._document.get("modes", ("auto",)))

    def tracked(self) -> TrackedChoice:
        return TrackedChoice(self._document.get("tracked", TrackedChoice.MODEL))

    # --- traffic --------------------------------------------------------------------------------------------------

    def traffic(self) -> tuple[Traffic, ...]:
        rows = self._document["traffic"]
        return tuple(self._row(("traffic", number), row) for number, row in enumerate(rows))

    def _row(self, steps: Steps, row: Mapping[str, Any]) -> Traffic:
        position = self._marks.position(steps)
        if "capture" in row:
            return CaptureTraffic(
                row["label"],
                self._capture((*steps, "capture"), row["capture"]),
                position,
                max_size=self._try((*steps, "max-size"), row["max-size"], size) if "max-size" in row else None,
                skip_unknown=row.get("skip-unknown-link-types", False),
            )
        parameters = self._parameters(steps, row)
        return GeneratedTraffic(row["label"], Generator(row["generate"]), parameters, position)

    def _capture(self, steps: Steps, name: str) -> Path:
        path = self._folder / name
        try:
            self._confined.require(path)
            if not path.is_file():
                self.fault(steps, f"no such file: {path}")
        except (Outside, ValueError, OSError) as error:  # ValueError: a NUL in the name
            self.fault(steps, str(error))
        return path

    def _parameters(self, steps: Steps, row: Mapping[str, Any]) -> Parameters:
        read: dict[str, Callable[[Steps, Any], Any]] = {
            "sources": self._sources,
            "destination": lambda at, text: self._try(at, text, ip_address),
            "sport": self._ports,
            "dport": self._ports,
            "flags": lambda at, value: tuple(as_list(value)),
            "vlan": lambda at, value: tuple(as_list(value)),
            "leave_out": lambda at, word: LeaveOut(word),
            "packet": self._expression,
        }
        given = {}
        for field in fields(Parameters):
            name = field.name.replace("_", "-")
            if name in row:
                value = row[name]
                given[field.name] = read[field.name]((*steps, name), value) if field.name in read else value
        parameters = Parameters(**given)
        self._check_families(steps, row, parameters)
        return parameters

    def _check_families(self, steps: Steps, row: Mapping[str, Any], parameters: Parameters) -> None:
        for source in parameters.sources:
            if parameters.destination and source.version != parameters.destination.version:
                self.fault(
                    (*steps, "destination"), f"is IPv{parameters.destination.version}; the source {source} is not"
                )
            if row["generate"] == Generator.ARP and source.version != 4:
                self.fault((*steps, "sources"), f"ARP is for IPv4; {source} is not")

    def _sources(self, steps: Steps, value: str | list[str]) -> tuple[IPNetwork, ...]:
        texts = as_list(value)
        return self._each(steps, texts, ip_network) or (ip_network("198.51.100.0/24"),)

    def _ports(self, steps: Steps, value: Any) -> Ports:
        return self._each(steps, as_list(value), port_range)

    def _expression(self, steps: Steps, text: str) -> str:
        try:
            parse_expression(text)
        except ExpressionError as error:
            place = self._marks.finding(steps, error.message)
            self.findings.append(replace(place, context=error.context))
        return text

    # --- expectations -----------------------------------------------------------------------------------------------

    def expectations(self, labels: Sequence[str]) -> tuple[Expectation, ...]:
        rows = self._document.get("expect", ())
        return tuple(self._expectation(("expect", number), row, labels) for number, row in enumerate(rows))

    def _expectation(self, steps: Steps, row: Mapping[str, Any], labels: Sequence[str]) -> Expectation:
        modes = tuple(ModeChoice(word) for word in row.get("modes", ()))
        for number, mode in enumerate(modes):
            if mode not in self.modes():
                self.fault((*steps, "modes", number), f"the scenario does not run in mode {mode}")
        position = self._marks.position(steps)
        if "conntrack-entries" in row:
            return ConntrackExpectation(
                self._bounds((*steps, "conntrack-entries"), row["conntrack-entries"]), modes, position
            )
        if "conntrack" in row:
            return self._conntrack((*steps, "conntrack"), row["conntrack"], modes, position)
        if "entry" in row:
            return EntryExpectation(row["entry"], self._bounds((*steps, "packets"), row["packets"]), modes, position)
        self._check_ends(steps, row, labels)
        return PacketExpectation(
            fate=Fate(row["fate"]),
            label=row.get("label"),
            stage=Stage(row["stage"]) if "stage" in row else None,
            at_or_before=Stage(row["at-or-before"]) if "at-or-before" in row else None,
            share=self._bounds((*steps, "share"), row.get("share", 1.0)),
            modes=modes,
            position=position,
        )

    def _conntrack(
        self, steps: Steps, row: Mapping[str, Any], modes: tuple[ModeChoice, ...], position: Position
    ) -> Expectation:
        def bounds(name: str) -> Bounds | None:
            return self._bounds((*steps, name), row[name]) if name in row else None

        states = {
            CtState(word): self._bounds((*steps, "state", word), value) for word, value in row.get("state", {}).items()
        }
        return ConntrackTableExpectation(
            states, bounds("entries"), bounds("early-drop"), bounds("dropped"), modes, position
        )

    def _check_ends(self, steps: Steps, row: Mapping[str, Any], labels: Sequence[str]) -> None:
        if "label" in row and row["label"] not in labels:
            hint = did_you_mean(row["label"], labels)
            self.fault((*steps, "label"), f"no traffic has the label {row['label']!r}{hint}")
        places = [name for name in ("stage", "at-or-before") if name in row]
        if places and row["fate"] != Fate.DROPPED:
            self.fault((*steps, places[0]), f"only dropped packets end at a stage, not {row['fate']} ones")
        if len(places) == 2:
            self.fault((*steps, "at-or-before"), "give stage or at-or-before, not both")

    def _bounds(self, steps: Steps, value: Any) -> Bounds:
        given = value if isinstance(value, dict) else {"": value}
        for name, number in given.items():
            if not isfinite(number):
                self.fault((*steps, name) if name else steps, f"expected a number, found {number}")
        if not isinstance(value, dict):
            return Bounds(value, value)
        bounds = Bounds(value.get("at-least"), value.get("at-most"))
        if bounds.at_least is not None and bounds.at_most is not None and bounds.at_least > bounds.at_most:
            self.fault(steps, "at-least is more than at-most; nothing can hold")
        return bounds

    # --- values that may be refused ---------------------------------------------------------------------------------

    def _each(self, steps: Steps, texts: Sequence[Any], read: Callable[[Any], T]) -> tuple[T, ...]:
        read_items = ((number, self._try((*steps, number), text, read)) for number, text in enumerate(texts))
        return tuple(item for _, item in read_items if item is not None)

    def _try(self, steps: Steps, text: Any, read: Callable[[Any], T]) -> T | None:
        try:
            return read(text)
        except (ValueError, PacketError) as error:
            self.fault(steps, str(error))
            return None


def as_list(value: Any) -> list[Any]:
    """A single value is a list of one."""
    return value if isinstance(value, list) else [value]


def port_range(value: int | str) -> PortRange:
    """A port, or ``first-last``. Raises ValueError."""
    first, _, last = str(value).partition("-")
    ports = PortRange(int(first), int(last or first))
    if not 0 <= ports.first <= ports.last <= PORT_MAX:
        raise ValueError(f"expected a range of ports within 0..{PORT_MAX}, lowest first, found {value!r}")
    return ports

"""HostFacts from a file: the output of ``enforcer probe -o yaml`` (or json) on that host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from enforcer.model.conntrack import NOT_PROBED, ConntrackFacts, ConntrackStatistics, Timeout
from enforcer.model.errors import Finding, Position, UsageError
from enforcer.model.facts import HostFacts, HostRules, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Backend, Mode, Word
from enforcer.policy.nodes import DocumentFault, Fieldset, Node, Scalar, from_text
from enforcer.policy.reading import Cursor, Fields, Refused, Report, boolean, integer, list_of, one_of, string
from enforcer.policy.values import address
from enforcer.system import files

FILE_MAX_BYTES = 4 << 20  # enough for ten thousand interfaces
EXPECTED = "expected the output of 'enforcer probe -o yaml' (or json)"

_COUNT_MAX = 2**63 - 1

Named = TypeVar("Named", bound=Word)


class FactsError(UsageError):
    """A file without valid facts. ``findings`` states the position, what was found and what is expected."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


def read_facts(path: Path) -> HostFacts:
    """The facts in a file. Raises UsageError saying what is missing or wrong."""
    try:
        documents = list(from_text(files.read_text(str(path), limit_bytes=FILE_MAX_BYTES, instead=EXPECTED)))
    except files.UnreadableError as error:
        raise UsageError(f"{path}: {error}") from error
    except DocumentFault as fault:
        place = Position(str(path), fault.line, fault.column)
        raise FactsError([Finding(place, "", f"{fault.message}; {EXPECTED}")]) from fault
    if len(documents) != 1:
        raise UsageError(f"{path}: expected one YAML document, found {len(documents)}; {EXPECTED}")
    return facts_of(documents[0], str(path))


def facts_of(document: Node, path: str) -> HostFacts:
    """The inverse of :func:`enforcer.cli.facts_view.facts_as_dict`. Raises FactsError with everything that is wrong.

    What is absent was not probed. Unknown fields are ignored: a newer enforcer may print more.
    """
    report = Report(path)
    at = Cursor(report, document)
    try:
        facts = _host(at)
    except Refused as refused:
        refused.report()
    if report.findings:
        first, *others = report.findings
        raise FactsError([Finding(first.position, first.field, f"{first.message}; {EXPECTED}"), *others])
    return facts


def _host(at: Cursor) -> HostFacts:
    fields = _fields(at)
    return HostFacts(
        node=fields.need("node", _name, ""),
        kernel=fields.get("kernel", _name, ""),
        rules=fields.get("host_rules", _rules, HostRules()),
        backends=dict(fields.get("backends", lambda here: tuple(_probes(here, Backend)), ())),
        conntrack=fields.get("conntrack", _conntrack, NOT_PROBED),
        interfaces=fields.need("interfaces", list_of(_interface), ()),
    )


def _interface(at: Cursor) -> InterfaceFacts:
    fields = _fields(at)
    return InterfaceFacts(
        name=fields.need("name", _name, ""),
        index=fields.get("index", integer(0, 2**31 - 1), 0),
        driver=fields.get("driver", _name, ""),
        mtu=fields.get("mtu", integer(0, 2**31 - 1), 1500),
        addresses=fields.get("addresses", list_of(address), ()),
        modes=dict(fields.get("modes", lambda here: tuple(_probes(here, Mode)), ())),
        alternative_names=fields.get("alternative_names", list_of(_name), ()),
        foreign_xdp=fields.get("foreign_xdp", _name, ""),
        gateways=fields.get("gateways", list_of(address), ()),
        netdev_ingress=fields.get("netdev_ingress", _probe, InterfaceFacts("").netdev_ingress),
    )


def _rules(at: Cursor) -> HostRules:
    fields = _fields(at)
    return HostRules(
        legacy=fields.get("iptables", integer(0, _COUNT_MAX), 0),
        nft=fields.get("nftables", integer(0, _COUNT_MAX), 0),
        kubernetes=fields.get("kubernetes", lambda here: Backend(one_of(*map(str, Backend))(here)), None),
    )


def _conntrack(at: Cursor) -> ConntrackFacts:
    """What is null or absent could not be read on that host: None, never a default."""
    fields = _fields(at)
    count = integer(0, _COUNT_MAX)
    return ConntrackFacts(
        max=fields.get("max", count, None),
        buckets=fields.get("buckets", integer(1, _COUNT_MAX), None),
        count=fields.get("count", count, None),
        checksum=fields.get("checksum", boolean, None),
        tcp_loose=fields.get("tcp_loose", boolean, None),
        tcp_be_liberal=fields.get("tcp_be_liberal", boolean, None),
        timeouts=fields.get("timeouts_s", _timeouts, {}),
        helpers=fields.get("helpers", list_of(_name), None),
        zones=fields.get("zones", list_of(integer(0, 0xFFFF)), None),
        statistics=fields.get("statistics", _statistics, None),
        unknown=fields.get("unknown", list_of(_name), ()),
    )


def _timeouts(at: Cursor) -> dict[Timeout, int]:
    fields = _fields(at)
    present = [item for item in Timeout if str(item) in fields]
    return {item: fields.need(str(item), integer(0, _COUNT_MAX), 0) for item in present}


def _statistics(at: Cursor) -> ConntrackStatistics:
    fields = _fields(at)
    count = integer(0, _COUNT_MAX)
    return ConntrackStatistics(*(fields.need(name, count, 0) for name in ("dropped", "early_drop", "insert_failed")))


def _probes(at: Cursor, names: type[Named]) -> Iterator[tuple[Named, Probe]]:
    """A probe for each of ``names``, a closed set of our own."""
    fields = Fields(at, [str(name) for name in names])
    for name in names:
        if str(name) in fields:
            yield name, _probe(fields.cursor(str(name)))


def _probe(at: Cursor) -> Probe:
    fields = _fields(at)
    return Probe(fields.need("answer", _answer, Answer.UNKNOWN), fields.get("reason", _name, ""))


def _answer(at: Cursor) -> Answer:
    """YAML 1.1 has yes and no for booleans."""
    if isinstance(at.node, Scalar) and isinstance(at.node.value, bool):
        return Answer.YES if at.node.value else Answer.NO
    return Answer(one_of(*map(str, Answer))(at))


def _name(at: Cursor) -> str:
    """A string. Interfaces and nodes may be named ``1e3`` or ``y``, whose type differs between YAML libraries."""
    if isinstance(at.node, Scalar) and not isinstance(at.node.value, str) and at.node.written:
        return at.node.written
    return string(at)


def _fields(at: Cursor) -> Fields:
    return Fields(at, at.node.fields if isinstance(at.node, Fieldset) else ())

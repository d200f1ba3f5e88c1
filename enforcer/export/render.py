"""Rules in the languages of those who deny them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from enforcer.emergency.times import written
from enforcer.export.select import Flow, Rule
from enforcer.model.vocabulary import Word

IPSET, TABLE = "enforcer-export", "enforcer_export"
_MAXELEM = 1 << 24  # a limit alone: the set grows as it needs
_LINE = 20  # elements in a line of nft


class ExportFormat(Word):
    EXABGP = "exabgp"
    JSON = "json"
    IPSET = "ipset"
    NFT = "nft"


def as_data(rules: Iterable[Rule]) -> dict[str, Any]:
    """For programs."""
    return {
        "schema": "enforcer/export/v1",
        "rules": [
            {
                "source": rule.flow.source,
                "destination": rule.flow.destination,
                "entry": rule.entry,
                "list": rule.listed,
                "dropped": None if rule.count is None else asdict(rule.count),
                "until": None if rule.until_s is None else written(rule.until_s),
            }
            for rule in rules
        ],
    }


def as_exabgp(verb: str, flow: Flow) -> str:
    """A command of ExaBGP's API, version 4 and 5. ``verb``: announce or withdraw. RFC 8955, and 8956 for IPv6."""
    assert flow.destination is not None, "never a source alone"
    return (
        f"{verb} flow route {{ match {{ source {flow.source}; destination {flow.destination}; }} then {{ discard; }} }}"
    )


def as_ipset(rules: Sequence[Rule]) -> Iterator[str]:
    """Lines for ``ipset restore -exist``. The set of a run before is replaced at once (swap)."""
    for version, sources in _by_version(rules):
        name, family = f"{IPSET}{version}", "inet" if version == 4 else "inet6"
        settings = f"hash:net family {family} maxelem {_MAXELEM}"
        yield f"create {name} {settings}"
        yield f"create {name}-new {settings}"
        yield f"flush {name}-new"
        yield from (f"add {name}-new {source}" for source in sources)
        yield f"swap {name} {name}-new"
        yield f"destroy {name}-new"


def as_nft(rules: Sequence[Rule]) -> Iterator[str]:
    """A file for ``nft -f``, which replaces the sets in one transaction. Rules are up to who uses them."""
    yield f"add table inet {TABLE}"
    for version, sources in _by_version(rules):
        name = f"sources{version}"
        yield f"add set inet {TABLE} {name} {{ type ipv{version}_addr; flags interval; auto-merge; }}"
        yield f"flush set inet {TABLE} {name}"
        for first in range(0, len(sources), _LINE):
            yield f"add element inet {TABLE} {name} {{ {', '.join(sources[first : first + _LINE])} }}"


def _by_version(rules: Sequence[Rule]) -> Iterator[tuple[int, list[str]]]:
    """Each source once, for both versions: a set that has become empty must be emptied there, too."""
    for version in (4, 6):
        yield (
            version,
            list(dict.fromkeys(rule.flow.source for rule in rules if (":" in rule.flow.source) == (version == 6))),
        )

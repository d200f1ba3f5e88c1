"""What is true of an entry in every backend of netfilter. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from enforcer.backends.netfilter.ports import PORT_PROTOCOLS
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Backend
from enforcer.policy.ruletable import Entry

ICMP, ICMPV6 = 1, 58
ICMP_OF_FAMILY = {4: ICMP, 6: ICMPV6}
LOG_PREFIX_LENGTH = 29  # struct xt_log_info: 30 with the NUL


def lets_go(entry: Entry) -> bool:
    """Whether matching the entry lets a packet go: then a set that is too small only matches less."""
    return entry.action in (Action.ALLOW, Action.PASS)


def cannot_match(entry: Entry, version: int) -> bool:
    """Whether the entry is not to be rendered for a family (Felix: ``FilterRuleToIPVersion``), or is a contradiction.

    A list of nets, negated or not, that is all of the other family makes the entry one of that family.
    """
    sides = (entry.source, entry.destination)
    lists = [nets for side in sides for nets in (side.nets, side.not_nets) if nets]
    return (
        entry.ip_version not in (None, version)
        or any(not _of_family(nets, version) for nets in lists)
        or any(net.version == version and net.prefixlen == 0 for side in sides for net in side.not_nets)
        or (asks_icmp_type(entry) and entry.protocol != ICMP_OF_FAMILY[version])
        or (entry.protocol is not None and entry.protocol == entry.not_protocol)
    )


def asks_icmp_type(entry: Entry) -> bool:
    return any(icmp is not None and icmp.type is not None for icmp in (entry.icmp, entry.not_icmp))


def _of_family(nets: Iterable[IPNetwork], version: int) -> list[IPNetwork]:
    return [net for net in nets if net.version == version]


def unsupported(entry: Entry, backend: Backend) -> Iterator[str]:
    """Why the raw table cannot express an entry, a sentence for each fault. The validator lets no such entry pass."""
    sides = (entry.source, entry.destination)
    has_ports = any(side.ports or side.not_ports for side in sides)
    if has_ports and entry.protocol not in PORT_PROTOCOLS:
        yield f"{backend} cannot enforce {entry.name}: it matches ports, but no protocol that has ports; add one"
    if asks_icmp_type(entry) and entry.protocol not in (ICMP, ICMPV6):
        yield f"{backend} cannot enforce {entry.name}: it matches an ICMP type without 'protocol: ICMP' or 'ICMPv6'"


def name_parts(name: str, limit: int) -> list[str]:
    """An entry's name in parts of at most ``limit`` bytes, cut between characters; never none."""
    parts = [""]
    for char in name:
        if len((parts[-1] + char).encode()) > limit:
            parts.append("")
        parts[-1] += char
    return parts


def log_prefix(template: str, entry: Entry) -> str:
    """Felix's specifiers filled in (``felix/rules/policy.go``), cut to what the LOG target can hold."""
    values = {"%t": entry.tier, "%k": "gnp", "%n": entry.policy, "%p": entry.policy}
    for specifier, value in values.items():
        template = template.replace(specifier, value)
    return template.encode()[: LOG_PREFIX_LENGTH - 2].decode(errors="ignore") + ": "

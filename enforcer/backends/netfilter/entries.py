"""What is true of an entry in every backend of netfilter. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from enforcer.backends.netfilter.ports import PORT_PROTOCOLS
from enforcer.model.errors import InternalError
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Backend
from enforcer.policy.conditions import ICMP, ICMPV6, Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.ruletable import Entry

LOG_PREFIX_LENGTH = 29  # struct xt_log_info: 30 with the NUL


def lets_pass(entry: Entry) -> bool:
    """Whether matching the entry lets a packet go: then a set that is too small only matches less."""
    return entry.action in (Action.ALLOW, Action.PASS)


def unsupported(entry: Entry, backend: Backend) -> Iterator[str]:
    """Why the raw table cannot express an entry, a sentence for each fault. The validator lets no such entry pass."""
    protocols = {item.number for item in entry.conditions if isinstance(item, Protocol) and not item.negated}
    for condition in entry.conditions:
        match condition:
            case Ports(_, ranges) if ranges and not protocols & set(PORT_PROTOCOLS):
                why = "it matches ports, but no protocol that has ports; add one"
            case Icmp() if not protocols & {ICMP, ICMPV6}:
                why = "it matches an ICMP type without 'protocol: ICMP' or 'ICMPv6'"
            case Protocol() | InNets() | InSet() | Ports() | Icmp():
                continue
            case _:
                raise unhandled(condition, f"{backend} cannot enforce {entry.name}: it")
        yield f"{backend} cannot enforce {entry.name}: {why}"


def of_family(nets: Iterable[IPNetwork], version: int) -> list[IPNetwork]:
    """The nets of one family. An entry is for a family only if it has some: none would be no condition."""
    found = [net for net in nets if net.version == version]
    if not found:
        raise InternalError(f"nets of the other family alone in an entry that is for IPv{version}")
    return found


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

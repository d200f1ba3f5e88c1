"""Properties of an entry that are the same in every netfilter backend. Pure."""

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
    """Whether a match lets the packet pass (Allow, Pass). Then a set with members missing is stricter, never laxer."""
    return entry.action in (Action.ALLOW, Action.PASS)


def unsupported(entry: Entry, backend: Backend) -> Iterator[str]:
    """Why raw cannot express an entry, one sentence for each reason. The validator already rejects such entries."""
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
    """The nets of one family. Raises InternalError if there are none: an empty list would match every address."""
    found = [net for net in nets if net.version == version]
    if not found:
        raise InternalError(f"nets of the other family alone in an entry that is for IPv{version}")
    return found


def name_parts(name: str, limit: int) -> list[str]:
    """An entry's name in one or more parts of at most ``limit`` bytes of UTF-8, cut between characters."""
    if len(name.encode()) <= limit:
        return [name]
    parts = [""]
    for char in name:
        if len((parts[-1] + char).encode()) > limit:
            parts.append("")
        parts[-1] += char
    return parts


def log_prefix(template: str, entry: Entry) -> str:
    """The log prefix with Felix's specifiers replaced (``felix/rules/policy.go``), at most LOG_PREFIX_LENGTH bytes."""
    values = {"%t": entry.tier, "%k": "gnp", "%n": entry.policy, "%p": entry.policy}
    for specifier, value in values.items():
        template = template.replace(specifier, value)
    return template.encode()[: LOG_PREFIX_LENGTH - 2].decode(errors="ignore") + ": "

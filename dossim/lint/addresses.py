"""own-address-denied: deny lists that contain addresses of hosts, or nets of failsafes. Pure.

A deny list is the set of sources of a Deny entry in an ingress table. An entry that denies every source is not one: a
final Deny of all that was not allowed is a common way to write policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dossim.lint.boxes import Box
from dossim.lint.failsafes import bypasses
from dossim.lint.finding import Finding, Level, Related, RuleId, some
from dossim.lint.members import Members
from dossim.lint.ranges import Ranges, numbers
from dossim.lint.shadow import Boxed, boxed, takes
from dossim.lint.tables import Governed
from enforcer.model.facts import HostFacts
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy.conditions import InSet
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import Entry

Owners = dict[IPAddress, str]


def owners_of(resources: Resources, facts: HostFacts | None) -> Owners:
    """The owner of each address: a HostEndpoint, a probed interface, or a gateway on one."""
    found: Owners = {}
    for endpoint in resources.host_endpoints:
        found |= dict.fromkeys(endpoint.expected_ips, f"hep/{endpoint.name} of {endpoint.node}")
    for interface in facts.interfaces if facts else ():
        for address in interface.addresses:
            found.setdefault(address, f"{interface.name} of {facts.node if facts else ''}")
        for address in interface.gateways:
            found.setdefault(address, f"gateway by {interface.name}")
    return found


def own_address_denied(governed: Governed, owners: Owners, members: Members) -> Iterator[Finding]:
    items = boxed(governed.table.ingress, governed.space)
    for at, item in enumerate(items):
        if item.entry.action is not Action.DENY:
            continue
        boxes = [box for box in item.boxes if box.exact and not box.source.is_full]
        own = [address for box in boxes for address in _held(box, owners, item, items[:at])]
        if own:
            yield _own(item.entry, own, owners, governed, members)
        trusted = sorted({str(net) for box in boxes for net in _trusted(box, governed)})
        if trusted:
            message = (
                f"{item.entry.name} denies sources in {some(trusted)}, a net that failsafes allow only on their own "
                "ports"
            )
            yield Finding(RuleId.OWN_ADDRESS, Level.WARNING, item.entry.position, message)


def _held(box: Box, owners: Owners, item: Boxed, earlier: Sequence[Boxed]) -> list[IPAddress]:
    """The addresses in a deny list that no earlier entry allows or denies."""
    mine = [address for address in owners if address.version == box.version]
    if not mine:
        return []
    held = box.source.holds(numbers(box.version, map(int, mine)))
    found = [address for address, holds in zip(mine, held.tolist(), strict=True) if holds]
    return [address for address in found if not takes(_only(box, address), item, earlier)]


def _only(box: Box, address: IPAddress) -> Box:
    return box._replace(source=Ranges.single(box.version, int(address)))


def _own(entry: Entry, own: list[IPAddress], owners: Owners, governed: Governed, members: Members) -> Finding:
    related: list[Related] = []
    shown: list[str] = []
    for address in own[:3]:
        by = members.listing(_source_set(entry), governed.table, address)
        shown.append(f"{address} ({owners[address]}{f', by {by.net} of {by.name}' if by else ''})")
        related += [Related(by.position, f"{by.name} holds {by.net}")] if by else []
    more = f" and {len(own) - 3} more" if len(own) > 3 else ""
    message = f"{entry.name} denies packets of our own hosts and gateways: its sources contain {', '.join(shown)}{more}"
    return Finding(RuleId.OWN_ADDRESS, Level.ERROR, entry.position, message, tuple(related))


def _source_set(entry: Entry) -> str | None:
    """The set that sources must be in, if there is one."""
    sets = [item for item in entry.conditions if isinstance(item, InSet)]
    return next((item.id for item in sets if item.side is Side.SOURCE and not item.negated), None)


def _trusted(box: Box, governed: Governed) -> Iterable[object]:
    """The nets of failsafes that share an address with a deny list."""
    for item in bypasses(governed.table, Direction.INGRESS):
        net = item.failsafe.net
        if net is not None and net.version == box.version and Ranges.of([net], net.version).meets(box.source):
            yield net

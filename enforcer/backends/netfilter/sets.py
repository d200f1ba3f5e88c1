"""The sets that rules refer to: their names, and the limit on their size. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from enforcer.backends.netfilter.names import set_name
from enforcer.model.errors import InternalError
from enforcer.model.nets import Nets
from enforcer.policy.ruletable import IpSet, PortSet

Spec = TypeVar("Spec")


class SetRegistry(Generic[Spec]):
    """The sets of the rules rendered so far, by name. Each set is described once, however many rules refer to it."""

    def __init__(self) -> None:
        self._specs: dict[str, Spec] = {}
        self._members: dict[str, object] = {}

    def specs(self) -> tuple[Spec, ...]:
        return tuple(self._specs.values())

    def _add(self, name: str, members: object, describe: Callable[[], Spec]) -> str:
        """Returns ``name``. ``describe`` creates the set's description if it is new; ``members`` must be the same every
        time. Raises InternalError otherwise.
        """
        if name not in self._specs:
            self._specs[name], self._members[name] = describe(), members
        elif self._members[name] != members:
            raise InternalError(f"one selector has two sets of members ({name}): the tables of a plan disagree")
        return name


def selector_name(item: IpSet, version: int, *, lenient: bool) -> str:
    """The name of a selector's set. It does not depend on the members, so they can change while rules refer to it."""
    return set_name(version, _identity([item.id], lenient=lenient))


def named_ports_name(items: Iterable[PortSet], version: int, *, lenient: bool) -> str:
    """The name of the set of all these named ports together. It does not depend on the members either."""
    return set_name(version, _identity([item.id for item in items], lenient=lenient))


def literal_name(nets: Nets, version: int) -> str:
    """The name of a set with exactly these nets. Different nets give a different set."""
    return set_name(version, ("literal\n" + "\n".join(str(net) for net in nets)).encode())


def in_order(items: Iterable[PortSet]) -> list[PortSet]:
    """The named ports without duplicates, in the order from which the name of their common set is derived."""
    by_id = {item.id: item for item in items}
    return [by_id[name] for name in sorted(by_id)]


def selector_origin(item: IpSet) -> str:
    """How error messages name a selector's set."""
    return f"selector {item.selector}"


def named_ports_origin(items: Iterable[PortSet]) -> str:
    """How error messages name a set of named ports."""
    return "named ports " + ", ".join(sorted({item.name for item in items}))


LITERAL_ORIGIN = "a list of nets"


def too_large(sizes: Iterable[tuple[str, int, int]], limit: int, *, backend: str, kind: str) -> Iterator[str]:
    """One sentence for each (origin, family, number of members) with more members than ``limit``."""
    for origin, version, members in sizes:
        if members > limit:
            yield (
                f"{backend} cannot enforce {origin}: it has {members:,} IPv{version} members, and {kind} may have "
                f"{limit:,}; raise maxIpsetSize in the FelixConfiguration, or divide it among several rules"
            )


def _identity(ids: Sequence[str], *, lenient: bool) -> bytes:
    """The identity of a set: the selectors or named ports, and whether it is the lenient set of these members."""
    return "\n".join(["lenient", *ids] if lenient else ids).encode()

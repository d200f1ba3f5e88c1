"""What becomes of two acts on the same object, whichever was written first. Pure.

Nothing is lost and nothing ends earlier: merging is idempotent, commutative and associative, so that any number of
operators who write at the same time, in any order and more than once, get the same object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from enforcer.emergency.act import DEEDS_MAX, Act, Deed, canonical, later
from enforcer.model.nets import IPNetwork


def merged(one: Act, other: Act) -> Act:
    """Both: all CIDRs, the later end, who did what. The labels are those of the newest deed."""
    newest = max(one, other, key=_newest)
    return replace(
        newest,
        nets=canonical((*one.nets, *other.nets)),
        until_s=max(one.until_s, other.until_s, key=later),
        deeds=_both(one.deeds, other.deeds),
    )


def shortened(held: Act, wanted: Act) -> Act:
    """As :func:`merged`, with the end that is wanted, be it earlier."""
    return replace(merged(held, wanted), until_s=wanted.until_s)


def adds(held: Act, wanted: Act) -> bool:
    """Whether there is something in ``wanted`` that ``held`` does not deny as long."""
    return later(wanted.until_s) > later(held.until_s) or not set(wanted.nets) <= set(held.nets)


def without(held: Act, nets: Iterable[IPNetwork], instead: Iterable[IPNetwork] = ()) -> Act:
    """The act without these of its CIDRs, and with others in their place."""
    gone = frozenset(nets)
    return replace(held, nets=canonical((*(net for net in held.nets if net not in gone), *instead)))


def _newest(act: Act) -> tuple[object, ...]:
    last = act.deeds[-1].rank if act.deeds else ()
    return (last, sorted(act.labels.items()), act.beside, act.id, act.name)


def _both(one: tuple[Deed, ...], other: tuple[Deed, ...]) -> tuple[Deed, ...]:
    """The first and the newest ones."""
    found = sorted({*one, *other}, key=lambda item: item.rank)
    return tuple(found[:1] + found[1:][-(DEEDS_MAX - 1) :])

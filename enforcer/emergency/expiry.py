"""Which acts have ended, decided by each agent for itself. Pure: clocks are arguments.

An end is a point of UTC, so it survives restarts and needs no datastore; but a wall clock can be wrong, and an act that
ends early opens the door. So an act ends only if one of these holds:

* The wall clock can be trusted, has reached the end, and CLOCK_BOOTTIME has advanced by what was left when this agent
  first saw the act in this boot. A clock that jumps ahead ends nothing early.
* CLOCK_BOOTTIME has advanced by the whole duration of the act (its end less its beginning) since this agent first saw
  it, which is never early, whatever the clocks say.

The wall clock can be trusted if the kernel says that it is synchronized, and if it is not behind the newest beginning
of any act. Each rule errs towards denying.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from enforcer.emergency.act import created_of, is_act, until_of
from enforcer.model.vocabulary import Word
from enforcer.policy.resources import GlobalNetworkSet, Resources


@dataclass(frozen=True)
class Clock:
    """What the clocks say at one moment: the wall clock as Unix time, CLOCK_BOOTTIME, and whether the kernel says that
    the first is synchronized (adjtimex(2)).
    """

    wall_s: float
    boot_s: float
    synchronized: bool


class ClockState(Word):
    """Whether acts end by the wall clock."""

    TRUSTED = "trusted"
    UNSYNCHRONIZED = "unsynchronized"
    BEHIND = "behind"  # an act was written later than now


@dataclass(frozen=True)
class Sighting:
    """What the clocks said when an agent first saw an act in this boot. ``created_s``: the beginning of the act: one
    with another is another act of the same name.
    """

    wall_s: float
    boot_s: float
    created_s: int | None


Sightings = Mapping[str, Sighting]  # by the name of the object


@dataclass(frozen=True)
class Decision:
    """``ended``: the names of the acts that are not to be enforced any more. ``wake_s``: CLOCK_BOOTTIME when the next
    one may end; None: none does. ``state``: None if no act has an end. ``until``: when each act that is enforced ends,
    as Unix time, None: never. ``cidrs``: how many they have.
    """

    ended: frozenset[str] = frozenset()
    wake_s: float | None = None
    state: ClockState | None = None
    until: Mapping[str, int | None] | None = None
    cidrs: int = 0

    @property
    def next_end_s(self) -> int | None:
        """The first of the ends to come, as Unix time."""
        return min((end for end in (self.until or {}).values() if end is not None), default=None)


def sightings(resources: Resources, clock: Clock, before: Sightings) -> Sightings:
    """The sightings of the acts that there are and that end; those of others are forgotten."""
    found: dict[str, Sighting] = {}
    for item in _ending(resources):
        known, created_s = before.get(item.name), created_of(item)
        is_known = known is not None and known.created_s == created_s and known.boot_s <= clock.boot_s
        found[item.name] = known if known and is_known else Sighting(clock.wall_s, clock.boot_s, created_s)
    return found


def decide(resources: Resources, clock: Clock, seen: Sightings) -> Decision:
    """``seen``: the sightings of all acts, as :func:`sightings` has them."""
    acts = [item for item in resources.global_network_sets if is_act(item)]
    state = clock_state(acts, clock)
    ended: set[str] = set()
    wakes: list[float] = []
    for item in _ending(resources):
        end_boot_s = _end_boot_s(item, clock, seen[item.name], trusted=state is ClockState.TRUSTED)
        if end_boot_s is None:
            continue
        if clock.boot_s >= end_boot_s:
            ended.add(item.name)
        else:
            wakes.append(end_boot_s)
    live = [item for item in acts if item.name not in ended]
    return Decision(
        frozenset(ended),
        min(wakes, default=None),
        state if any(until_of(item) is not None for item in acts) else None,
        {item.name: until_of(item) for item in live},
        sum(len(item.nets) for item in live),
    )


def clock_state(acts: Iterable[GlobalNetworkSet], clock: Clock) -> ClockState:
    if not clock.synchronized:
        return ClockState.UNSYNCHRONIZED
    newest = max((created_of(item) or 0 for item in acts), default=0)
    return ClockState.BEHIND if clock.wall_s < newest else ClockState.TRUSTED


def without(resources: Resources, ended: frozenset[str]) -> Resources:
    """The resources without these acts; the same object if there are none."""
    if not ended:
        return resources
    kept = tuple(item for item in resources.global_network_sets if not (is_act(item) and item.name in ended))
    return replace(resources, global_network_sets=kept)


def _ending(resources: Resources) -> Iterable[GlobalNetworkSet]:
    return (item for item in resources.global_network_sets if until_of(item) is not None)


def _end_boot_s(item: GlobalNetworkSet, clock: Clock, seen: Sighting, *, trusted: bool) -> float | None:
    """When it ends on CLOCK_BOOTTIME, as far as is known now; None: it does not."""
    until_s, created_s = until_of(item), created_of(item)
    assert until_s is not None
    ends: list[float] = []
    if trusted:
        ends.append(max(clock.boot_s + until_s - clock.wall_s, seen.boot_s + until_s - seen.wall_s))
    if created_s is not None and created_s <= until_s:
        ends.append(seen.boot_s + until_s - created_s)
    return min(ends, default=None)

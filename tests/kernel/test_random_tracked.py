"""Random untracked and tracked policies on the running kernel: it does what predict and explain say.

Each example is one whole drill: random resources compiled, rendered into the kernel, and the packets that reach every
entry through it, with a conversation whose packets conntrack tells apart. Every packet ends where predict says, and
where explain says; a drop that is predicted of an entry has the mark that a Deny of ours sets. Fragments wait for
timeouts; they have drills of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from dossim.drill.results import DrillResult
from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.observe.evidence import DroppedBy
from dossim.packet.capture import Capture
from dossim.predict.prediction import NO_ENTRY
from enforcer.backends.netfilter.settings import drop_bit
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import Resources
from tests.kernel.drill_support import assert_as_predicted, ends
from tests.kernel.test_random_policies import drillable
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.reach_tracked import reach_tracked
from tests.support.strategies import hosts
from tests.support.tracked_strategies import resources_of_every_kind, spoken, tracked_resources
from tests.support.tracked_witnesses import explained, tables_of
from tests.support.unmutated import UNMUTATED
from tests.support.witnesses import plan_for, table_of

pytestmark = [pytest.mark.needs_root, pytest.mark.slow, pytest.mark.long]

Drill = Callable[[Resources, Host, ModeChoice, list[bytes], list[bytes]], None]


@dataclass(frozen=True)
class Part:
    """The examples of a batch in one mode."""

    choice: ModeChoice
    policies: st.SearchStrategy[Resources]
    hosts: st.SearchStrategy[Host]
    examples: int


def _forwarding(host: Host) -> Host:
    return replace(host, forward=True)


# What is drawn does not follow from the seed alone (Hypothesis draws constants of the modules that are loaded), so that
# policy of each kind, XDP and forwarding hosts are not left to chance.
PARTS = (
    Part(ModeChoice.NATIVE, resources_of_every_kind(), hosts().map(_forwarding), 6),
    Part(ModeChoice.GENERIC, resources_of_every_kind(), hosts().map(_forwarding), 6),
    Part(ModeChoice.RAW, tracked_resources(), hosts(), 11),
)
EARLY = sum(part.examples for part in PARTS if part.choice is not ModeChoice.RAW)
BATCHES = (RawChoice.IPTABLES, RawChoice.NFTABLES, RawChoice.IPTABLES, RawChoice.NFTABLES)  # they run side by side
AFTER = (Stage.MANGLE, Stage.FILTER_INPUT, Stage.FILTER_FORWARD)
CANDIDATES, ADJACENT, UNTRACKED_ADJACENT = 8, 6, 2  # the properties have more


def different_ends(result: DrillResult, found: list[Disposition]) -> list[str]:
    """Packets that explain says end elsewhere."""
    situation = result.situation
    frames = [result.capture.frame(number) for number in range(len(result.capture))]
    answers = explained(situation.resources, situation.host, situation.choice, frames, situation.raw)
    return [
        f"packet {number} {frames[number].hex()}: explained {end}, observed {other}"
        for number, (end, other) in enumerate(zip(answers, found, strict=True))
        if not end.agrees(other)
    ]


def without_our_mark(result: DrillResult, found: list[Disposition]) -> list[str]:
    """Packets that an entry of tracked policy drops, as predicted, without the bit of the mark that tells so."""
    felix = result.situation.resources.felix_for(result.situation.host.node)
    is_nftables = result.situation.raw is RawChoice.NFTABLES and felix.nftables_settings
    bit = drop_bit(felix.nftables_mark_mask if is_nftables else felix.iptables_mark_mask)
    settled = result.prediction.settled(result.observations.ct_state)
    return [
        f"packet {number}: {end}, predicted {settled.disposition(number)}: {result.observations.evidence(number)}"
        for number, end in enumerate(found)
        if end.stage in AFTER and settled.entry[number] != NO_ENTRY
        if result.observations.dropped_by(number, bit) is not DroppedBy.OURS
    ]


@pytest.mark.parametrize(("batch", "backend"), list(enumerate(BATCHES)), ids=str)
def test_the_kernel_does_what_was_predicted_and_explained_with_tracked_policy(backend: RawChoice, batch: int) -> None:
    seen: Counter[str] = Counter()
    known: set[str] = set()

    def drill(policy: Resources, host: Host, choice: ModeChoice, others: list[bytes], talk: list[bytes]) -> None:
        tables, untracked = tables_of(policy, host), table_of(policy, host)
        assume(tables.governs and str(tables) not in known)
        plan = plan_for(policy, host, choice, backend)
        reached = reach_tracked(tables, plan, host, candidates_each=CANDIDATES, adjacent=ADJACENT)
        early = reach(untracked, host, candidates_each=CANDIDATES, adjacent=UNTRACKED_ADJACENT)
        frames = drillable([*reached.frames, *early.frames, *others, *talk], host)
        with kept(f"found-random-tracked-{backend}-{batch}", policy, host, frames):
            situation = Situation(policy, host, choice, backend, tracked=TrackedChoice.ENFORCE)
            result = drill_capture(Capture.from_frames(frames), situation)
            assert_as_predicted(result)
            found = ends(result)
            assert not (wrong := different_ends(result, found)), "\n".join(wrong)
            assert not (wrong := without_our_mark(result, found)), "\n".join(wrong)
        known.add(str(tables))
        seen.update(policies=1, packets=len(frames), entries=len(reached.decided), untracked=bool(untracked.ingress))
        seen.update(reached=sum(map(bool, reached.decided.values())), early=result.mode != "raw")
        seen.update(end.column for end in found)

    for part in PARTS:
        examples_of(part, batch)(drill)
    assert seen["policies"] >= sum(part.examples for part in PARTS), seen
    assert seen["reached"] > seen["entries"] / 5, seen  # many come after entries that decide all their packets
    assert seen["untracked"] >= EARLY, seen
    assert seen["early"] >= EARLY, seen
    ends_seen = (Stage.RAW, *AFTER, Fate.DELIVERED, Fate.FORWARDED)
    assert all(seen[str(end)] for end in ends_seen), seen


def examples_of(part: Part, batch: int) -> Callable[[Drill], None]:
    """Runs a drill with each of the examples. Shrinking one takes too long: a failing one is reported as it is."""

    def run(drill: Drill) -> None:
        @seed(batch)
        @settings(
            backend=UNMUTATED,
            max_examples=examples(part.examples, nightly=60 * part.examples),
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(part.policies, part.hosts, captures(), st.data())
        def of_one(policy: Resources, host: Host, others: list[bytes], data: st.DataObject) -> None:
            drill(policy, host, part.choice, others, data.draw(spoken(host)))

        of_one()

    return run

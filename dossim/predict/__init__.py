"""predict: columns and a compiled plan in, one disposition per packet out. Vectorised, pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.columns import parse_columns
from dossim.predict.after import STATES, AfterConntrack
from dossim.predict.after import Tables as Tables
from dossim.predict.flows import ordinary4, ordinary6
from dossim.predict.following import Arrived, Times, follow
from dossim.predict.odd import OddPassed, filter_odd, predict_odd
from dossim.predict.ordinary import Passed, filter_ordinary, is_ordinary4, is_ordinary6, predict_ordinary
from dossim.predict.prediction import Draft
from dossim.predict.prediction import Prediction as Prediction
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import RuleTable

_BLOCK = 1 << 17  # packets processed together: bounds memory, and fits the caches better than a whole capture


def predict(
    capture: Capture,
    plan: InterfacePlan,
    host: Host,
    tables: Tables | None = None,
    inside: RuleTable | None = None,
    *,
    states: bool = False,
    times: Times | None = None,
) -> Prediction:
    """Where each packet that arrives at the plan's interface of the host ends.

    ``tables``: policy after conntrack that is enforced. ``inside``: what raw holds for the host's inside interface,
    which the host's answers may leave by. ``states``: predict conntrack states even if no policy depends on them.
    ``times``: when each packet arrives, int64[N] in ns; without, all arrive at one instant.
    """
    draft = Draft(capture)
    tables = tables or Tables()
    if not tables.governs and not states:
        _run(capture, plan, host, draft, lambda passed: None)
        return draft.finish(plan.table.ingress)
    ordinary: list[Passed] = []
    odd = _run(capture, plan, host, draft, ordinary.append)
    arrived = Arrived([passed.arrived for passed in ordinary], odd.arrived)
    inside = inside or RuleTable(host.inside)
    if not tables.governs:
        drafts = dict.fromkeys(STATES, draft)  # no end depends on a state
        found = follow(capture, drafts, arrived, plan, host, inside, plan.table.ingress, times)
        return found.draft.finish(plan.table.ingress, has_states=True)
    entries = (*plan.table.ingress, *tables.entries())
    index = {entry.name: number for number, entry in reversed(list(enumerate(entries)))}
    drafts = {}
    for state in STATES:
        drafts[state] = draft.copied()
        after = AfterConntrack(tables, state, index)
        for passed in ordinary:
            filter_ordinary(passed, drafts[state], after)
        filter_odd(odd, drafts[state], after)
    found = follow(capture, drafts, arrived, plan, host, inside, entries, times)
    return found.draft.finish(entries, found.sets, found.by_state, has_states=True)


def _run(capture: Capture, plan: InterfacePlan, host: Host, draft: Draft, keep: Callable[[Passed], None]) -> OddPassed:
    """Decide all packets without policy after conntrack. ``keep`` gets the ordinary ones; returns the others."""
    odd: list[int] = []
    for start in range(0, len(capture), _BLOCK):
        part = capture.part(start, start + _BLOCK)
        odd.extend(start + number for number in _block(part, start, plan, host, draft, keep))
    return predict_odd(capture, odd, plan, host, draft)


def _block(
    capture: Capture, start: int, plan: InterfacePlan, host: Host, draft: Draft, keep: Callable[[Passed], None]
) -> list[int]:
    """Decide the ordinary packets of a block; returns the numbers, within it, of all others."""
    columns = parse_columns(capture)
    missing = (capture.wire_length - capture.length).astype(np.int64)
    sendable = draft.is_sendable(start, start + len(capture))
    is_odd = sendable.copy()
    for flows, is_ordinary in (
        (ordinary4(columns, missing), is_ordinary4),
        (ordinary6(columns, missing), is_ordinary6),
    ):
        mine = flows.take(is_ordinary(flows, host) & sendable[flows.number])
        is_odd[mine.number] = False
        keep(predict_ordinary(mine.renumbered(start), plan, host, draft))
    return [int(number) for number in np.flatnonzero(is_odd)]

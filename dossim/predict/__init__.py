"""predict: a capture and a compiled plan in, one disposition per packet out. Pure; the work is the engine's."""

from __future__ import annotations

from dossim.engine.follower import Follower
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict.after import Tables as Tables
from dossim.predict.following import EndsByState, Times, entries_of, note, refused_of, sets_of, way_of
from dossim.predict.prediction import Draft
from dossim.predict.prediction import Prediction as Prediction
from dossim.predict.world import predictor_of, reasons_of
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import RuleTable


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
    ``times``: when each packet arrives, int64[N] in ns; without, all arrive at one instant. Raises MemoryError.
    """
    tables = tables or Tables()
    tracks = tables.governs or states
    draft = Draft(capture, reasons_of(host))
    way = way_of(plan, host, tables, inside or RuleTable(host.inside), tracks=tracks)
    with Follower(predictor_of(plan, host, [way]), [way]) as follower:
        (found,), _ = follower.follow(capture, [draft], refused=refused_of(draft), times=times)
    note(draft, found)
    entries = entries_of(plan, tables)
    sets = sets_of(found.several, entries, draft.reasons)
    return draft.finish(entries, sets, EndsByState.of(found.several), has_states=tracks)

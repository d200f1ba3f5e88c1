"""What Calico would do with tracked policy that the enforcer does not enforce (``tracked: model``). Pure.

Nothing in a drill carries that policy out, so nothing there verifies this prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dossim.drill.situation import Situation, modelled_after
from dossim.model.disposition import Fate
from dossim.packet.capture import Capture
from dossim.predict import Prediction, Tables, predict
from dossim.predict.prediction import FATE_CODE, STAGE_CODE, STAGES
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import InterfacePlan

# Where tracked policy drops received packets.
STAGES_OF_TRACKED = (Stage.MANGLE, Stage.FILTER_INPUT, Stage.FILTER_FORWARD)


@dataclass(frozen=True)
class Drops:
    """``packets`` that Calico would drop at ``stage``, by an entry or a default; ``entry`` None: for ``reason``."""

    stage: Stage
    entry: str | None
    reason: str
    packets: int


@dataclass(frozen=True)
class Modelled:
    """``prediction``: where each packet ends with Calico, by ``tables``; None if a rule cannot be evaluated, which
    ``why_not`` states.
    """

    tables: Tables
    prediction: Prediction | None
    why_not: str = ""

    def drops(self) -> tuple[Drops, ...]:
        """The packets that tracked policy would drop, in packet order. Of several possible ends the first counts."""
        found = self.prediction
        if found is None:
            return ()
        rows = np.flatnonzero(_is_dropped_later(found))
        keys = np.stack([found.stage[rows], found.entry[rows], found.reason[rows]]).astype(np.int64)
        if not len(rows):
            return ()
        columns, counts = np.unique(keys, axis=1, return_counts=True)
        return tuple(
            Drops(STAGES[stage], found.entries[entry].name if entry >= 0 else None, found.reasons[reason], int(count))
            for (stage, entry, reason), count in zip(columns.T.tolist(), counts.tolist(), strict=True)
        )

    def several(self) -> dict[str, int]:
        """Packets that tracked policy may drop or not, by what that depends on."""
        found = self.prediction.several() if self.prediction else {}
        later = [end.depends for end in found.values() if any(stage in STAGES_OF_TRACKED for _, stage in end.ends)]
        return dict(Counter(later).most_common())

    def undetermined(self, enforced: Prediction) -> int:
        """Packets that are undetermined because of tracked policy alone."""
        if self.prediction is None:
            return 0
        is_open = FATE_CODE[Fate.UNDETERMINED]
        return int(((self.prediction.fate == is_open) & (enforced.fate != is_open)).sum())


def _is_dropped_later(found: Prediction) -> npt.NDArray[np.bool_]:
    stages = [STAGE_CODE[stage] for stage in STAGES_OF_TRACKED]
    return np.asarray((found.fate == FATE_CODE[Fate.DROPPED]) & np.isin(found.stage, stages), np.bool_)


def modelled(
    situation: Situation, plan: InterfacePlan, through: Callable[[Callable[[Capture], Prediction]], Prediction]
) -> Modelled | None:
    """None, if nothing of tracked policy is left to Calico: it is enforced, or no HostEndpoint governs the host's
    interfaces. ``through`` applies a prediction to the packets that are judged.
    """
    try:
        later = modelled_after(situation)
    except UnsupportedRuleError as error:
        return Modelled(Tables(), None, str(error))
    tables = later.tables
    if tables is None or not tables.governs:
        return None
    found = through(lambda capture: predict(capture, plan, situation.host, tables, later.inside))
    return Modelled(tables, found)

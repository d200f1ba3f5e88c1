"""What can be said of packets without those of other shards; the others are taken out for :mod:`decide`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dossim.cluster.gather import Dependents, of_rows
from dossim.engine.predictor import NOT_ODD, DoubtGiven, Predictor
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict import Prediction
from dossim.predict.batches import Doubt, Why
from dossim.predict.prediction import FATE_CODE, STAGE_CODE, Draft
from dossim.predict.world import predictor_of, reasons_of
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import InterfacePlan


@dataclass
class Alone:
    """Predicts packets by themselves, by the ``engine``. ``follows``: those that get to conntrack are seen together."""

    plan: InterfacePlan
    host: Host
    follows: bool

    def __post_init__(self) -> None:
        self.engine: Predictor = predictor_of(self.plan, self.host)
        self._reasons = reasons_of(self.host)

    def predict(self, capture: Capture, doubt: Doubt | None, why: Why | None) -> tuple[Prediction, Dependents | None]:
        """Where packets end, and those of which that does not count, because it depends on others; None: of none.

        These are fragments, packets of which it is not known whether they get to conntrack, and if that is followed all
        that do.
        """
        draft = Draft(capture, self._reasons)
        doubtful = None if doubt is None else DoubtGiven(doubt.rows, doubt.otherwise, draft.code_of(doubt.reason))
        odd, flows = self.engine.predict(capture, draft, doubtful, records_flows=self.follows)
        depends = odd != NOT_ODD
        if self.follows:
            is_open = draft.fate == FATE_CODE[Fate.UNDETERMINED]
            depends |= is_open & (draft.stage < STAGE_CODE[Stage.CONNTRACK])
            depends[flows["number"]] = True
        draft.say_where_cut()
        found = draft.finish(self.plan.table.ingress)
        if why is not None:
            found = found.with_reason(why.packets, why.reason)
        rows = np.flatnonzero(depends)
        if not len(rows):
            return found, None
        return found, of_rows(np.arange(len(capture), dtype=np.int64), capture, doubt, why, rows)

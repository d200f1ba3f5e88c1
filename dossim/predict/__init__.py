"""predict: columns and a compiled plan in, one disposition per packet out. Vectorised, pure."""

from __future__ import annotations

import numpy as np

from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.columns import parse_columns
from dossim.predict.flows import ordinary4, ordinary6
from dossim.predict.odd import predict_odd
from dossim.predict.ordinary import is_ordinary4, is_ordinary6, predict_ordinary
from dossim.predict.prediction import Draft
from dossim.predict.prediction import Prediction as Prediction
from enforcer.planning.plan import InterfacePlan

_BLOCK = 1 << 17  # packets processed together: bounds memory, and fits the caches better than a whole capture


def predict(capture: Capture, plan: InterfacePlan, host: Host) -> Prediction:
    """Where each packet that arrives at the plan's interface of the host ends."""
    draft = Draft(capture)
    odd: list[int] = []
    for start in range(0, len(capture), _BLOCK):
        odd.extend(start + number for number in _block(capture.part(start, start + _BLOCK), start, plan, host, draft))
    predict_odd(capture, odd, plan, host, draft)
    return draft.finish(plan.table.ingress)


def _block(capture: Capture, start: int, plan: InterfacePlan, host: Host, draft: Draft) -> list[int]:
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
        predict_ordinary(mine.renumbered(start), plan, host, draft)
    return [int(number) for number in np.flatnonzero(is_odd)]

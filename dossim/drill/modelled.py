"""What Calico would do with tracked policy that the enforcer does not enforce (``tracked: model``). Pure.

Nothing in a drill carries that policy out, so nothing there verifies this prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dossim.drill.situation import Situation, modelled_after
from dossim.packet.capture import Capture
from dossim.predict import Prediction, Tables, predict
from enforcer.model.errors import UnsupportedRuleError
from enforcer.planning.plan import InterfacePlan


@dataclass(frozen=True)
class Modelled:
    """``prediction``: where each packet ends with Calico, by ``tables``; None if the packets were only counted, or a
    rule cannot be evaluated, which ``why_not`` states.
    """

    tables: Tables
    prediction: Prediction | None
    why_not: str = ""


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

"""The policy with a suggestion beside it, and where packets are predicted to end without and with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from dossim.drill.judged import every
from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Fate
from dossim.packet.capture import Capture
from dossim.predict import Prediction
from dossim.predict.prediction import FATE_CODE, FATES, STAGE_CODE, STAGES
from dossim.suggest.traffic import I64, Bool
from enforcer.model.errors import UsageError
from enforcer.policy.load import load_documents
from enforcer.policy.resources import HostEndpoint, Resources

Ends = Mapping[str, int]
_WORDS = (*map(str, STAGES), *(str(fate) for fate in FATES if fate is not Fate.DROPPED))


@dataclass(frozen=True)
class Applied:
    """Packets by stage that drops them, or fate; ``before`` and ``after``: without and with the suggestion."""

    before: Ends
    after: Ends

    @property
    def words(self) -> list[str]:
        """Every end, in the order in which packets reach them."""
        return [word for word in _WORDS if word in self.before or word in self.after]


def with_endpoint(resources: Resources, situation: Situation) -> Resources:
    """Also with a HostEndpoint of the interface, if there are none: else no policy would be for it."""
    if resources.host_endpoints:
        return resources
    host = situation.host
    return replace(
        resources, host_endpoints=(HostEndpoint("suggested", node=host.node, interface_name=host.interface),)
    )


def with_documents(resources: Resources, documents: list[dict[str, Any]], name: str) -> Resources:
    """The resources and these, which our own validator has accepted. Raises UsageError where a name is taken."""
    made = load_documents(documents, "<suggested>")
    for item in fields(Resources):
        present = {(type(each), each.name) for each in getattr(resources, item.name) if hasattr(each, "name")}
        taken = [
            each.name
            for each in getattr(made, item.name)
            if hasattr(each, "name") and (type(each), each.name) in present
        ]
        if taken:
            raise UsageError(f"--name {name}: the policy has {taken[0]} already; choose another name")
    return replace(
        resources,
        global_network_sets=(*resources.global_network_sets, *made.global_network_sets),
        policies=(*resources.policies, *made.policies),
    )


def denied(capture: Capture, situation: Situation) -> Bool:
    """bool[N]: the packets that untracked policy denies as it is."""
    if not situation.resources.policies:
        return np.zeros(len(capture), np.bool_)
    prediction = predict_capture(capture, situation, recorded=every(capture)).prediction
    return np.asarray((prediction.fate == FATE_CODE[Fate.DROPPED]) & (prediction.entry >= 0), np.bool_)


def applied(capture: Capture, packets: I64, situation: Situation, after: Resources) -> Applied:
    """Of these packets of a capture."""
    return Applied(_ends(capture, packets, situation), _ends(capture, packets, replace(situation, resources=after)))


def _ends(capture: Capture, packets: I64, situation: Situation) -> Ends:
    prediction = predict_capture(capture, situation, recorded=every(capture)).prediction
    return _totals(prediction, packets)


def _totals(prediction: Prediction, packets: I64) -> Ends:
    fate, stage = prediction.fate[packets], prediction.stage[packets]
    dropped = np.bincount(stage[fate == FATE_CODE[Fate.DROPPED]], minlength=len(STAGES))
    found = {str(item): int(dropped[code]) for item, code in STAGE_CODE.items()}
    found |= {str(item): int((fate == FATE_CODE[item]).sum()) for item in FATES if item is not Fate.DROPPED}
    return {word: count for word, count in found.items() if count}

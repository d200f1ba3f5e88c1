"""Packets that no untracked policy can deny: those of failsafe ports, and the answers to what failsafes let out."""

from __future__ import annotations

import numpy as np

from dossim.suggest.tally import Ranges
from dossim.suggest.traffic import I32, Bool, Traffic
from enforcer.policy.resources import Failsafe, FelixConfiguration


def passes(traffic: Traffic, felix: FelixConfiguration) -> Bool:
    """bool[N]"""
    found = np.zeros(len(traffic), np.bool_)
    for item in felix.failsafe_inbound:
        found |= _matches(traffic, item, traffic.destination_port)
    for item in felix.failsafe_outbound:
        found |= _matches(traffic, item, traffic.value)
    return found


def _matches(traffic: Traffic, item: Failsafe, port: I32) -> Bool:
    mine = (traffic.protocol == item.protocol) & (port == item.port)
    if item.net is not None:
        mine &= Ranges([item.net]).contain(traffic.is_six, traffic.key)
    return np.asarray(mine, np.bool_)

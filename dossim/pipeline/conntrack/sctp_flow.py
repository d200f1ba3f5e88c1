"""What an entry keeps of an SCTP association (``struct ip_ct_sctp``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from dossim.pipeline.conntrack.sctp_states import SctpState
from dossim.pipeline.conntrack.states import CtDirection


@dataclass
class SctpFlow:
    """``tags`` are the verification tags expected in each direction, 0 while unknown; ``inits``: an INIT was seen.

    ``heartbeat_failed``: a HEARTBEAT with another tag was let through in ``last_direction``.
    """

    state: SctpState = SctpState.NONE
    tags: list[int] = field(default_factory=lambda: [0, 0])
    inits: list[bool] = field(default_factory=lambda: [False, False])
    heartbeat_failed: bool = False
    last_direction: CtDirection = CtDirection.ORIGINAL

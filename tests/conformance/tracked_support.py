"""What tests of enforced normal policy share."""

from __future__ import annotations

ALLOW, DENY = {"action": "Allow"}, {"action": "Deny"}
NO_PROFILE_IN, NO_PROFILE_OUT = "no profile ingress", "no profile egress"


def tcp(port: int) -> dict[str, object]:
    """A rule that allows a TCP port."""
    return {"action": "Allow", "protocol": "TCP", "destination": {"ports": [port]}}

"""What can be wrong with captures and scenarios; everything else is in :mod:`enforcer.model.errors`."""

from __future__ import annotations

from enforcer.model.errors import EnforcerError


class CaptureError(EnforcerError):
    """A file is not a capture, is cut short, or has a link type that cannot be replayed."""

    exit_code = 2


class ScenarioError(EnforcerError):
    """A scenario file asks for something that cannot be."""

    exit_code = 2


class PacketError(EnforcerError):
    """A packet given on the command line (Scapy expression or CAPTURE#N) cannot be built."""

    exit_code = 2

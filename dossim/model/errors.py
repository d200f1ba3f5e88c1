"""What can be wrong with captures and scenarios, and what an installation can lack.

Everything else is in :mod:`enforcer.model.errors`.
"""

from __future__ import annotations

from enforcer.model.errors import EnforcerError, HostError

# The modules of the packages of ``dossim[sim]`` (pyproject.toml), which an installation of the enforcer does not have.
SIMULATOR = frozenset({"scapy", "networkx", "jinja2", "jsonschema", "iptc", "lz4", "backports"})


class CaptureError(EnforcerError):
    """A file is not a capture, is cut short, or has a link type that cannot be replayed."""

    exit_code = 2


class ScenarioError(EnforcerError):
    """A scenario file asks for something that cannot be."""

    exit_code = 2


class PacketError(EnforcerError):
    """A packet given on the command line (Scapy expression or CAPTURE#N) cannot be built."""

    exit_code = 2


class SimulatorError(HostError):
    """What was asked for needs packages that only ``dossim[sim]`` brings."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs the simulator: pip install 'dossim[sim]'")


def is_of_simulator(error: ModuleNotFoundError) -> bool:
    """Whether what could not be imported belongs to the simulator; anything else that is missing is a bug."""
    return (error.name or "").partition(".")[0] in SIMULATOR

"""What can be wrong with captures and scenarios, and what an installation can lack.

Everything else is in :mod:`enforcer.model.errors`.
"""

from __future__ import annotations

from enforcer.model.errors import EnforcerError, HostError
from enforcer.model.printable import printable

# The modules of the extra ``sim`` (pyproject.toml), which an installation without it lacks.
SIMULATOR = frozenset({"scapy", "networkx", "jinja2", "jsonschema", "pyroute2", "iptc", "lz4", "backports"})


class CaptureError(EnforcerError):
    """A file is not a capture, is cut short, or has a link type that cannot be replayed. The message is one line."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ScenarioError(EnforcerError):
    """A scenario file is invalid."""

    exit_code = 2


class PacketError(EnforcerError):
    """A packet given on the command line (Scapy expression or CAPTURE#N) cannot be built."""

    exit_code = 2


class SimulatorError(HostError):
    """``what`` needs a package that only ``dossim[sim]`` installs."""

    def __init__(self, what: str, missing: ModuleNotFoundError) -> None:
        super().__init__(f"{what} needs the simulator ({missing.name} is missing): pip install 'dossim[sim]'")


def is_of_simulator(error: ModuleNotFoundError) -> bool:
    """Whether the missing module belongs to the simulator. Any other missing module is a bug."""
    return (error.name or "").partition(".")[0] in SIMULATOR

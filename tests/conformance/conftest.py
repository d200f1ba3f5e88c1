"""The network of a test: created for each test, and always removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.vocabulary import Stage
from tests.conformance.topology import Network

STAGES = {ModeChoice.NATIVE: Stage.DRIVER, ModeChoice.GENERIC: Stage.GENERIC, ModeChoice.RAW: Stage.RAW}


@pytest.fixture(params=list(STAGES), ids=str)
def choice(request: pytest.FixtureRequest) -> ModeChoice:
    """The requested mode of every enforcer in the network; without this fixture, auto, which results in native."""
    found: ModeChoice = request.param
    return found


@pytest.fixture
def stage(choice: ModeChoice) -> Stage:
    """The stage at which a deny list drops in this mode."""
    return STAGES[choice]


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A :class:`Network`; after its enforcers are detached, no state of theirs may be left."""
    requested = request.getfixturevalue("choice") if "choice" in request.fixturenames else ModeChoice.AUTO
    with Network(requested) as found:
        yield found
        assert found.detach() == []


@pytest.fixture(params=[RawChoice.IPTABLES, RawChoice.NFTABLES], ids=str)
def tracked_network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A :class:`Network` whose enforcers enforce normal policy as well, by each backend."""
    with Network(raw=request.param, tracked=TrackedChoice.ENFORCE) as found:
        yield found
        assert found.detach() == []


@pytest.fixture(params=["eth0", "*"], ids=["named", "any"])
def interface(request: pytest.FixtureRequest) -> str:
    """The interfaceName of a HostEndpoint."""
    found: str = request.param
    return found

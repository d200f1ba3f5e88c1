"""Negotiation with a driver that refuses modes: each refusal excludes one mode of one interface, the rest continues."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from ipaddress import ip_network

import pytest

from enforcer.backends.base import ApplyResult
from enforcer.enforcement.negotiate import Negotiated, negotiate_modes
from enforcer.enforcement.probe_cache import ProbeCache
from enforcer.enforcement.request import ApplyRequest
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import HostError, InternalError, KernelError, PrivilegeError
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import STAGE_OF_MODE, Action, Answer, Backend, Mode, Stage
from enforcer.planning.plan import Plan
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.ruletable import RuleTable
from tests.support.entries import SideMatch, entry_of
from tests.support.idle_backend import IdleBackend

ENTRY = entry_of("gnp/x ingress[0]", Action.DENY, source=SideMatch(nets=(ip_network("203.0.113.0/24"),)))
TABLES = tuple(RuleTable(name, f"jasper-{name}", (ENTRY,)) for name in ("eth0", "eth1"))
MODES = {Mode.OFFLOAD: Probe(Answer.NO, "no hardware"), Mode.NATIVE: Probe(Answer.YES), Mode.GENERIC: Probe(Answer.YES)}
FACTS = HostFacts("jasper", interfaces=tuple(InterfaceFacts(table.interface, 2, modes=MODES) for table in TABLES))
FELIX = FelixConfiguration("default", generic_xdp_enabled=True)


class Refusing(IdleBackend):
    """A ModeDriver that accepts every mode except those refused for an interface."""

    def __init__(
        self, refused: Mapping[str, tuple[Mode, ...]] | None = None, *, error: Exception | None = None
    ) -> None:
        super().__init__(Backend.XDP, Stage.NIC_OFFLOAD)
        self._refused = refused or {}
        self._error = error
        self.passes: list[dict[str, Mode | None]] = []

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        self.passes.append({item.interface: item.mode for item in plan.interfaces})
        if self._error:
            raise self._error
        refused = {
            item.interface: "no room" for item in plan.interfaces if item.mode in self._refused.get(item.interface, ())
        }
        return ApplyResult(changes=(f"pass {len(self.passes)}",), refused=refused)


def negotiated(
    driver: IdleBackend,
    *,
    choice: ModeChoice = ModeChoice.AUTO,
    enforced: Mapping[str, Mode] | None = None,
    absent: frozenset[str] = frozenset(),
    facts: HostFacts = FACTS,
    cache: ProbeCache | None = None,
) -> Negotiated:
    """``enforced``: what the driver holds already."""
    driver.held = {name: STAGE_OF_MODE[mode] for name, mode in (enforced or {}).items()}
    request = ApplyRequest(TABLES, facts, FELIX, choice, absent=absent)
    return negotiate_modes(request, driver, cache or ProbeCache(), dry_run=False)


def modes(found: Negotiated) -> dict[str, Mode | None]:
    return {item.interface: item.mode for item in found.plan.interfaces}


@pytest.mark.parametrize(
    ("refused", "ends"),
    [
        pytest.param({}, {"eth0": Mode.NATIVE, "eth1": Mode.NATIVE}, id="nothing refused"),
        pytest.param({"eth0": (Mode.NATIVE,)}, {"eth0": Mode.GENERIC, "eth1": Mode.NATIVE}, id="one mode of one"),
        pytest.param(
            {"eth0": (Mode.NATIVE, Mode.GENERIC), "eth1": (Mode.NATIVE,)},
            {"eth0": None, "eth1": Mode.GENERIC},
            id="every mode of one, one of the other",
        ),
    ],
)
def test_auto_goes_on_to_the_next_mode_of_that_interface_alone(
    refused: Mapping[str, tuple[Mode, ...]], ends: dict[str, Mode | None]
) -> None:
    driver = Refusing(refused)
    found = negotiated(driver)
    assert modes(found) == ends
    assert driver.passes[-1] == ends
    assert found.impossible == {}
    assert found.changes == [f"pass {number + 1}" for number in range(len(driver.passes))]


def test_the_reason_of_the_kernel_becomes_the_reason_of_the_plan() -> None:
    (first, _) = negotiated(Refusing({"eth0": (Mode.NATIVE,)})).plan.interfaces
    assert first.mode_reasons == (
        (Mode.OFFLOAD, "no hardware"),
        (Mode.NATIVE, "rejected when attaching: no room"),
    )


def test_a_driver_that_cannot_work_at_all_leaves_everything_to_raw() -> None:
    found = negotiated(Refusing(error=HostError("libbpf.so.1: not found; apt install libbpf1")))
    assert modes(found) == {"eth0": None, "eth1": None}
    assert found.warnings == ["XDP: libbpf.so.1: not found; apt install libbpf1"]


@pytest.mark.parametrize(
    ("enforced", "ends"),
    [
        pytest.param({}, {"eth0": None, "eth1": Mode.NATIVE}, id="was not in XDP: raw at least"),
        pytest.param(
            {"eth0": Mode.GENERIC}, {"eth0": Mode.GENERIC, "eth1": Mode.NATIVE}, id="was in generic: stays there"
        ),
    ],
)
def test_a_mode_requested_by_name_and_refused_leaves_the_interface_where_it_is(
    enforced: Mapping[str, Mode], ends: dict[str, Mode | None]
) -> None:
    found = negotiated(Refusing({"eth0": (Mode.NATIVE,)}), choice=ModeChoice.NATIVE, enforced=enforced)
    assert modes(found) == ends
    assert list(found.impossible) == ["eth0"]
    assert "rejected when attaching: no room" in found.impossible["eth0"]


def test_a_missing_interface_is_no_obstacle_to_a_mode_requested_by_name() -> None:
    found = negotiated(Refusing(), choice=ModeChoice.GENERIC, absent=frozenset({"eth0"}))
    assert found.impossible == {}
    assert modes(found)["eth1"] is Mode.GENERIC


def test_a_refusal_is_remembered_for_these_resources_and_tried_again_for_others() -> None:
    cache, resources = ProbeCache(), Resources()
    cache.begin(resources)
    negotiated(Refusing({"eth0": (Mode.NATIVE,)}), cache=cache)
    cache.begin(resources)
    assert modes(negotiated(Refusing(), cache=cache))["eth0"] is Mode.GENERIC
    cache.begin(Resources())
    assert modes(negotiated(Refusing(), cache=cache))["eth0"] is Mode.NATIVE


# -- it terminates, and every interface has raw
# ---------------------------------------------------------------------------------------


class NeverContent(IdleBackend):
    """A driver that refuses everything, even modes that were not requested."""

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        self.calls.append("netdev apply")
        return ApplyResult(refused={item.interface: "no" for item in plan.interfaces} | {"nowhere": "no"})


@pytest.mark.parametrize("choice", ModeChoice)
@pytest.mark.parametrize("facts", [FACTS, HostFacts("jasper")], ids=["interfaces known", "nothing known"])
@pytest.mark.parametrize(
    "absent",
    [frozenset(), frozenset({"eth0"}), frozenset({"eth0", "eth1"})],
    ids=["none absent", "one absent", "both absent"],
)
def test_it_ends_whatever_is_requested_known_and_refused(
    choice: ModeChoice, facts: HostFacts, absent: frozenset[str]
) -> None:
    driver = NeverContent()
    found = negotiated(driver, choice=choice, facts=facts, absent=absent)
    assert driver.calls.count("netdev apply") <= 1 + len(Mode) * len(TABLES)
    assert modes(found) == {"eth0": None, "eth1": None}
    assert found.warnings


FAILURES = [
    (KernelError("create a map", number=errno.EMFILE), KernelError),
    (PrivilegeError("XDP needs CAP_BPF"), PrivilegeError),
    (OSError(errno.EROFS, "Read-only file system"), HostError),
    (RuntimeError("can't start new thread"), HostError),
    (MemoryError(), HostError),
    (ValueError("a bug"), InternalError),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES, ids=lambda item: getattr(item, "__name__", repr(item)))
def test_an_xdp_part_that_fails_leaves_the_modes_as_they_are_and_the_rest_to_raw(
    error: Exception, kind: type[Exception]
) -> None:
    driver = Refusing(error=error)
    found = negotiated(driver, enforced={"eth1": Mode.GENERIC})
    assert len(driver.passes) == 1  # no mode is tried that could remove what is enforced
    assert modes(found) == {"eth0": None, "eth1": Mode.GENERIC}
    assert type(found.failed) is kind

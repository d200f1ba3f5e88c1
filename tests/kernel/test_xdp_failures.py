"""However the XDP part fails: raw has the policy, what was enforced stays, and the error says so."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.backends.base import ApplyResult
from enforcer.backends.iptables import IptablesBackend
from enforcer.backends.xdp.backend import XdpBackend
from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.rtnetlink import interface
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import EnforcerError, HostError, InternalError, KernelError
from enforcer.model.vocabulary import Mode, Stage
from enforcer.planning.plan import Plan
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    DENIED,
    DENY_BOTS,
    NODE,
    deny_list,
    documents,
    endpoint,
    policy,
    run,
    traffic,
)

pytestmark = pytest.mark.needs_root

FIRST = documents(endpoint(), deny_list("203.0.113.0/24"), policy())
DENY_OTHERS = "{action: Deny, source: {nets: [198.51.100.0/24]}}"
SECOND = documents(endpoint(), deny_list("203.0.113.0/24"), policy(DENY_BOTS, DENY_OTHERS))
OTHER = "192.0.2.9"
FEW = ("prlimit", "--nofile=20:20")  # enough for raw


@pytest.fixture
def detached(netns_pair: NetnsPair, pin_root: Path) -> Iterator[NetnsPair]:
    """The pair; afterwards everything of ours is removed."""
    yield netns_pair
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()


def apply(pair: NetnsPair, pin_root: Path, text: str = FIRST, choice: ModeChoice = ModeChoice.NATIVE) -> None:
    with pair.host():
        Enforcer(NODE, pin_root=pin_root, choice=choice).apply(load_text(text))


def attached(pair: NetnsPair) -> list[Mode]:
    with pair.host():
        state = interface("eth0")
    assert state is not None
    return [item.mode for item in state.xdp]


def stages(pair: NetnsPair, pin_root: Path) -> set[Stage]:
    with pair.host():
        return {item.stage for item in Enforcer(NODE, pin_root=pin_root).counters()}


def test_too_few_descriptors_for_xdp_are_enough_for_raw(detached: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(FIRST)
    words = ["apply", "-f", str(tmp_path), "--node", NODE, "--pin-root", str(pin_root), "--mode", "native"]
    refused = run(detached, words, through=FEW)
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: XDP: ")
    assert "EMFILE (Too many open files); raw has all of the policy" in refused.stderr
    assert (attached(detached), stages(detached, pin_root)) == ([], {Stage.RAW})
    assert run(detached, words).returncode == 0
    (tmp_path / "policy.yaml").write_text(SECOND)
    assert run(detached, words, through=FEW).returncode == 3
    assert attached(detached) == [Mode.NATIVE]  # the old policy in XDP, the new one in raw
    with traffic(detached) as wire:
        assert wire.arrivals(DENIED, ALLOWED, OTHER) == [OTHER]


FAILURES = [
    (OSError(errno.EROFS, "Read-only file system"), HostError, "Read-only file system"),
    (KernelError("create map rows", number=errno.ENOMEM), KernelError, "ENOMEM"),
    (RuntimeError("can't start new thread"), HostError, "can't start new thread"),
    (ValueError("surprise"), InternalError, "ValueError: surprise"),
]


@pytest.mark.parametrize(
    ("where", "error", "kind", "said"),
    [("apply", *row) for row in FAILURES] + [(where, *FAILURES[0]) for where in ("interfaces", "release")],
)
def test_xdp_that_fails_somehow_is_said_after_raw_was_applied(
    detached: NetnsPair,
    pin_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: Exception,
    kind: type[EnforcerError],
    said: str,
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise error

    apply(detached, pin_root)
    choice = ModeChoice.RAW if where == "release" else ModeChoice.NATIVE
    with monkeypatch.context() as patch:
        patch.setattr(XdpBackend, where, fail)
        with pytest.raises(kind, match=said):
            apply(detached, pin_root, SECOND, choice)
    assert attached(detached) == [Mode.NATIVE]
    with traffic(detached) as wire:
        assert wire.arrivals(DENIED, ALLOWED, OTHER) == [OTHER]


def test_where_raw_fails_xdp_lets_go_of_nothing(
    detached: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: IptablesBackend, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        raise KernelError("replace the raw table", number=errno.ENOMEM)

    apply(detached, pin_root)
    with monkeypatch.context() as patch:
        patch.setattr(IptablesBackend, "apply", fail)
        for text, choice in ((FIRST, ModeChoice.RAW), (documents(endpoint()), ModeChoice.NATIVE)):
            with pytest.raises(KernelError, match="replace the raw table"):
                apply(detached, pin_root, text, choice)
            assert attached(detached) == [Mode.NATIVE]
    apply(detached, pin_root, choice=ModeChoice.RAW)
    assert attached(detached) == []

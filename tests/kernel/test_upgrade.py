"""docs/upgrading.md: what another version finds in the kernel and on disk, with packets all the time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from enforcer.backends.xdp.state import layout
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.model.vocabulary import Stage
from enforcer.policy.load import load_text
from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import ALLOWED, DENIED, documents, traffic
from tests.kernel.xdp_support import state_of, wait_until

pytestmark = pytest.mark.needs_root


def stages(applied: Applied) -> set[Stage]:
    return {entry.stage for item in applied.plan.interfaces for entry in item.entries}


def test_another_version_of_the_pins_lets_no_packet_through(
    host: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program of the other version stays and drops; the new one enforces in raw until those pins are removed."""
    policy = load_text(documents())
    with traffic(host) as wire, host.host():

        def drops() -> bool:
            return wire.arrivals(DENIED, ALLOWED) == [ALLOWED]

        Enforcer(NODE, pin_root=pin_root).apply(policy)
        assert drops()
        monkeypatch.setattr(layout, "ABI_VERSION", layout.ABI_VERSION + 1)
        newer = Enforcer(NODE, pin_root=pin_root)
        applied = newer.apply(policy)
        assert stages(applied) == {Stage.RAW}
        assert any(
            "a foreign XDP program, id" in reason and "(xdp_untracked)" in reason for reason in applied.fallbacks
        )
        assert drops()
        shutil.rmtree(pin_root / "v2")
        wait_until(lambda: not state_of().xdp)
        assert drops(), "raw has every entry"
        last = Enforcer(NODE, pin_root=pin_root)
        assert Stage.DRIVER in stages(last.apply(policy))
        assert drops()
        last.detach()

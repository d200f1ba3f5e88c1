"""The XDP backend with the program that bcc compiles on this host: the same pins, maps, counters and changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.state.layout import Pins
from enforcer.cli.main import main
from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.bpf import bcc_compile
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.toolchain import require
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import HostError
from enforcer.model.vocabulary import STAGE_OF_MODE, Mode, Stage, Toolchain
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import NODE, documents
from tests.kernel.xdp_support import counts, passes, pinned_ids, plan_of, state_of, udp_from

pytestmark = pytest.mark.needs_root

LISTED, ELSEWHERE = ["203.0.113.0/24", "2001:db8::/32"], ["198.51.100.0/24"]


@pytest.fixture
def backend(pin_root: Path) -> XdpBackend:
    try:
        require(Toolchain.BCC)
    except HostError as error:
        pytest.skip(str(error))
    return XdpBackend(pin_root, toolchain=Toolchain.BCC)


@pytest.fixture
def without_bcc(monkeypatch: pytest.MonkeyPatch) -> None:
    bcc_compile._interpreter.cache_clear()
    monkeypatch.setattr(bcc_compile, "INTERPRETERS", ("/nowhere/python3",))


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])
def test_a_listed_source_is_dropped_and_counted_and_others_pass(
    netns_pair: NetnsPair, backend: XdpBackend, mode: Mode
) -> None:
    with netns_pair.host():
        assert not backend.apply(plan_of(LISTED, mode=mode)).refused
        assert backend.apply(plan_of(LISTED, mode=mode)).changes == ()
        assert [item.mode for item in state_of().xdp] == [mode]
    frame = udp_from("203.0.113.255")
    assert not passes(netns_pair, frame)
    assert passes(netns_pair, udp_from("203.0.114.0"))
    with netns_pair.host():
        (count,) = backend.counters()
        assert (count.interface, count.entry, count.stage) == ("eth0", "deny0", STAGE_OF_MODE[mode])
        assert (count.packets, count.bytes) == (1, len(frame) - 14)
        backend.detach()
        assert not state_of().xdp


def test_address_lists_are_changed_in_place(netns_pair: NetnsPair, backend: XdpBackend) -> None:
    with netns_pair.host():
        backend.apply(plan_of(LISTED))
        before = pinned_ids(Pins.of(LIBBPF, backend.pin_root, "eth0"))
        assert backend.apply(plan_of(ELSEWHERE)).changes == ("eth0: address lists changed in place (1 entry, 1 CIDR)",)
        assert pinned_ids(Pins.of(LIBBPF, backend.pin_root, "eth0")) == before
    assert passes(netns_pair, udp_from("203.0.113.1"))
    assert not passes(netns_pair, udp_from("198.51.100.1"))
    with netns_pair.host():
        backend.detach()


def test_another_toolchain_is_another_program_swapped_in_with_its_counters(
    netns_pair: NetnsPair, backend: XdpBackend
) -> None:
    prebuilt = XdpBackend(backend.pin_root)
    with netns_pair.host():
        prebuilt.apply(plan_of(LISTED))
    for number, (item, next_one) in enumerate([(prebuilt, backend), (backend, prebuilt)], start=1):
        assert not passes(netns_pair, udp_from("203.0.113.1"))
        with netns_pair.host():
            (program,) = state_of().xdp
            assert next_one.apply(plan_of(LISTED)).changes == ("eth0: policy replaced (1 entry, 2 CIDRs)",)
            assert state_of().xdp[0].prog_id != program.prog_id
            assert counts(item) == {"deny0": number}
    with netns_pair.host():
        backend.detach()


# -- a host without bcc --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_bcc")
def test_without_bcc_raw_enforces_and_it_is_said_what_to_install(netns_pair: NetnsPair, pin_root: Path) -> None:
    resources = load_text(documents())
    with netns_pair.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, toolchain=Toolchain.BCC)
        with pytest.raises(HostError, match="python3-bpfcc"):
            enforcer.apply(resources)
        assert not state_of().xdp
        assert {item.stage for item in enforcer.counters()} == {Stage.RAW}
        enforcer.detach()


@pytest.mark.usefixtures("without_bcc")
def test_without_xdp_no_toolchain_is_missed(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, toolchain=Toolchain.BCC, choice=ModeChoice.RAW)
        assert enforcer.apply(load_text(documents())).changes
        enforcer.detach()


@pytest.mark.usefixtures("without_bcc")
def test_the_command_says_so_and_ends_with_3(
    netns_pair: NetnsPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(documents())
    with netns_pair.host(), pytest.raises(SystemExit) as ended:
        main(["apply", "-f", str(path), "--node", NODE, "--toolchain", "bcc"])
    with netns_pair.host():
        assert Enforcer(NODE).detach()
    assert ended.value.code == 3
    assert "error: bcc is not installed for /nowhere/python3; install it" in capsys.readouterr().err

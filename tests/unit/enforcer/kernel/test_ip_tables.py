"""The modules of the legacy tables: how they are requested, in which order, and the error if nothing loads them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from enforcer.backends.iptables.rules import TableId, TableName
from enforcer.backends.iptables.table import kernel_table
from enforcer.kernel import ip_tables, libiptc
from enforcer.model.errors import UnsupportedKernelError


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A kernel without the modules; records the requested ones."""
    found: list[str] = []

    class Netfilter:
        """A netlink socket whose answer arrives at once."""

        def __init__(self, family: int, *_: int) -> None:
            assert family == socket.AF_NETLINK

        def __enter__(self) -> Netfilter:
            return self

        def __exit__(self, *_: object) -> None: ...

        def settimeout(self, seconds: float) -> None: ...

        def bind(self, address: object) -> None: ...

        def send(self, message: bytes) -> None:
            found.append("match icmp6" if b"icmp6\0" in message else "match icmp")

        def recv(self, size: int) -> bytes:
            return b""

    def index(name: str) -> int:
        found.append(f"device {name}")
        raise OSError(19, "No such device")

    monkeypatch.setattr(ip_tables, "TABLE_NAMES", {4: str(tmp_path / "names4"), 6: str(tmp_path / "names6")})
    monkeypatch.setattr(ip_tables.socket, "socket", Netfilter)
    monkeypatch.setattr(ip_tables.socket, "if_nametoindex", index)
    return found


@pytest.mark.parametrize(
    ("version", "wanted"), [(4, ["match icmp", "device ip_tables"]), (6, ["match icmp6", "device ip6_tables"])]
)
def test_a_module_that_no_match_loads_is_requested_as_a_device(
    requests: list[str], version: int, wanted: list[str]
) -> None:
    ip_tables.request_module(version)
    assert requests == wanted


def test_nothing_more_is_requested_once_it_is_loaded(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: int) -> None:
        requests.append("loaded")
        Path(ip_tables.TABLE_NAMES[4]).touch()

    monkeypatch.setattr(ip_tables, "_ask_for_match", load)
    ip_tables.request_module(4)
    ip_tables.request_module(4)
    assert requests == ["loaded"]


@pytest.mark.parametrize(("version", "module"), [(4, "ip_tables"), (6, "ip6_tables")])
def test_a_table_that_cannot_be_opened_says_what_to_do(
    requests: list[str], monkeypatch: pytest.MonkeyPatch, version: int, module: str
) -> None:
    def refuse(*_: object) -> None:
        raise libiptc.IptcError("open table raw", "iptables who? (do you need to insmod?)", 92)

    monkeypatch.setattr("enforcer.backends.iptables.table.Snapshot", refuse)
    with (
        pytest.raises(UnsupportedKernelError, match=f"'modprobe {module}'"),
        kernel_table(TableId(version, TableName.RAW)),
    ):
        pass
    assert requests[-1] == f"device {module}"

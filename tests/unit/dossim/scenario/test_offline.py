"""Reading and building packets uses no network: no DNS, no ARP, no socket, whatever a field contains."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.fields import FieldListField, IP6Field, IPField, MultipleTypeField
from scapy.layers.inet6 import IP6ListField
from scapy.layers.l2 import Ether

from dossim.model.errors import PacketError
from dossim.scenario.expression import frame_of, frames_of, layers
from dossim.scenario.offline import LookupRefused, NetworkRefused, offline

HOST = {4: ip_address("10.10.10.10"), 6: ip_address("fd00::10")}
NAME = "gateway.example.com"
_ASKED: list[tuple[str, Any]] = []
_listening = threading.local()


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if getattr(_listening, "on", False) and event.startswith("socket."):
        _ASKED.append((event, arguments))


sys.addaudithook(_listen)  # added after the project's own hook: it sees what that one permits


@contextmanager
def nobody_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails if anything uses the resolver or a socket."""

    def lookup(*arguments: object, **options: object) -> object:
        _ASKED.append(("resolver", arguments))
        raise OSError("no lookup is allowed")

    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo", "getfqdn"):
        monkeypatch.setattr(socket, name, lookup)
    _ASKED.clear()
    _listening.on = True
    try:
        yield
    finally:
        _listening.on = False
    assert not _ASKED


def _is_address(field: Any) -> bool:
    while not isinstance(field, MultipleTypeField) and hasattr(field, "fld"):
        field = field.fld
    kind = field.field if isinstance(field, FieldListField) else field
    return isinstance(kind, (IPField, IP6Field, IP6ListField))


FIELDS = [(name, field) for name, kind in sorted(layers().items()) for field in kind.fields_desc]
ADDRESSES = [(name, field) for name, field in FIELDS if _is_address(field)]
FORMS = ('"{}"', 'b"{}"', '["{}"]', '["1.2.3.4", "{}"]', '("{}", "1.2.3.4")', '("1.2.3.4", "{}")', '"{}/24"')


def test_there_are_many_address_fields() -> None:
    assert len(ADDRESSES) > 80
    assert len(FIELDS) > 1_000


def test_a_host_name_in_an_address_field_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_asked(monkeypatch):
        for layer, field in ADDRESSES:
            for form in FORMS:
                with pytest.raises(PacketError, match="expected an IP"):
                    frames_of(f"{layer}({field.name}={form.format(NAME)})", HOST)


@pytest.mark.slow
def test_a_host_name_in_any_field_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_asked(monkeypatch):
        for layer, field in FIELDS:
            with suppress(PacketError):
                frames_of(f'IP(src="1.2.3.4")/{layer}({field.name}="{NAME}")', HOST)


def test_a_record_s_data_may_be_a_name_where_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_asked(monkeypatch):
        assert b"gateway" in frame_of(f'{UDP}/DNS(an=[DNSRR(type="CNAME", rdata="{NAME}")])', HOST)
    with pytest.raises(PacketError, match="names are not looked up"):
        frame_of(f'{UDP}/DNS(an=[DNSRR(type="A", rdata="{NAME}")])', HOST)


UDP = 'IP(src="1.2.3.4")/UDP(dport=53)'
INCOMPLETE = {
    "ARP()": "psrc is missing",
    "IP()/ICMP()": "src is missing",
    f'{UDP}/VXLAN()/Ether()/IP(src="1.2.3.4")/UDP()': "",
    f"{UDP}/VXLAN()/Ether()/ARP()": "psrc is missing",
    'IP(src="1.2.3.4")/ICMP()/IPerror()/UDPerror()': "src is missing",
    'IP(src="1.2.3.4")/IPv6()/UDP()': "src is missing",
    'Ether(dst=None, src=None)/IP(src="1.2.3.4")/UDP()': "",
    "IP(src=None)/UDP()": "expected an IP address or CIDR, found 'None'",
    'IPv6(src="fd00::1")/ICMPv6ND_NS()/ICMPv6NDOptSrcLLAddr()': "",
    "Dot3()/LLC()/STP()": "",
    'IPv6(src="fd00::1")/ICMPv6ND_Redirect()/ICMPv6NDOptRedirectedHdr(pkt=IPv6()/UDP())': "src is missing",
    "IP(src='224.0.0.1%lo')": "expected an IP address or CIDR",
}


@pytest.mark.parametrize(("text", "missing"), INCOMPLETE.items())
def test_what_is_left_out_is_not_taken_from_this_machine(
    text: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scapy.config import conf

    def routed(*arguments: object, **options: object) -> object:
        raise AssertionError("looked up a route of this machine")

    monkeypatch.setattr(type(conf.route), "route", routed)
    monkeypatch.setattr(type(conf.route6), "route", routed)
    with nobody_asked(monkeypatch):
        if missing:
            with pytest.raises(PacketError, match=missing):
                frame_of(text, HOST)
        else:
            assert Ether(frame_of(text, HOST))


@pytest.mark.parametrize("text", ['IP(src="10.0.0.0/30")', 'IPv6(src="fd00::/126")', 'ARP(psrc=["10.0.0.0/31"])'])
def test_numbers_are_read_without_the_resolver(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_asked(monkeypatch):
        assert frames_of(text, HOST)


def test_offline_means_this_thread_and_this_block() -> None:
    with offline():
        for name in ("localhost", b"localhost"):
            with pytest.raises(LookupRefused):
                socket.getaddrinfo(name, None)
        with pytest.raises(LookupRefused):
            socket.gethostbyname("localhost")
        with pytest.raises(NetworkRefused):
            socket.socket()
        with pytest.raises(NetworkRefused):
            subprocess.run(["true"], check=True)
        with pytest.raises(NetworkRefused):
            os.system("true")
        assert socket.getaddrinfo("127.0.0.1", None)
        elsewhere: list[bool] = []
        thread = threading.Thread(target=lambda: elsewhere.append(socket.socket().close() is None))
        thread.start()
        thread.join()
        assert elsewhere == [True]
    socket.socket().close()

"""Scapy expressions: never executed as code, and the same frame on every machine."""

from __future__ import annotations

import re
from ipaddress import ip_address
from unittest.mock import patch

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from dossim.model.errors import PacketError
from dossim.scenario.expression import frame_of, frames_of
from dossim.scenario.template import HOST_MAC, OUTSIDE_MAC

HOST = {4: ip_address("10.10.10.10"), 6: ip_address("fd00::10")}


def test_an_expression_is_the_packet_scapy_builds() -> None:
    frame = frame_of('IP(src="203.0.113.9", dst="10.10.10.10") / TCP(sport=20, dport=80, flags="FPU")', HOST)
    link = Ether(dst=HOST_MAC, src=OUTSIDE_MAC)
    wanted = link / IP(src="203.0.113.9", dst="10.10.10.10") / TCP(sport=20, dport=80, flags="FPU")
    assert frame == bytes(wanted)


def test_the_destination_is_the_host_unless_given() -> None:
    assert Ether(frame_of('IP(src="1.2.3.4")/UDP()', HOST))[IP].dst == "10.10.10.10"
    assert Ether(frame_of('IPv6(src="2001:db8::1")/UDP()', HOST))[IPv6].dst == "fd00::10"
    assert Ether(frame_of('ARP(psrc="1.2.3.4")', HOST))[ARP].pdst == "10.10.10.10"


UNDERSTOOD = [
    ("layers below", 'Ether()/Dot1Q(vlan=5)/IP(src="1.2.3.4")/UDP()', Dot1Q),
    ("a text as payload", 'IP(src="1.2.3.4")/UDP()/"hello"', UDP),
    ("bytes, repeated", "IP(src='1.2.3.4')/UDP()/Raw(b'x' * 100)", UDP),
    ("options in lists and tuples", 'IP(src="1.2.3.4")/TCP(options=[("MSS", 1460), ("NOP", None)])', TCP),
]


@pytest.mark.parametrize(("text", "layer"), [row[1:] for row in UNDERSTOOD], ids=[row[0] for row in UNDERSTOOD])
def test_is_understood(text: str, layer: type) -> None:
    assert layer in Ether(frame_of(text, HOST))


REFUSED = [
    ("code", '__import__("os").system("id")', "only layers"),
    ("an attribute", "IP.fields_desc", "only layers"),
    ("a name", "IP", "only layers"),
    ("a comprehension", "[IP() for _ in range(9)]", "only layers"),
    ("a lambda", "(lambda: 0)()", "only layers may be called"),
    ("a function", "open('/etc/passwd')", "no layer is called 'open'"),
    ("a formatted text", 'IP(src=f"{1}")', "only layers"),
    ("a misspelt layer", 'IPP(src="1.2.3.4")', "did you mean 'IP'?"),
    ("a misspelt field", 'IP(source="1.2.3.4")', "IP has no field 'source'"),
    ("an argument that is no field", 'IP(_underlayer="x")', "IP has no field '_underlayer'"),
    ("keywords from a mapping", "IP(**{})", "no field None"),
    ("a host name", 'IP(src="localhost")', "expected an IP address or CIDR, found 'localhost'"),
    ("no source", "IP()/UDP()", "src is missing"),
    ("a value that does not fit", 'IP(src="1.2.3.4")/UDP(dport=70000)', "Scapy cannot build it"),
    ("several packets", 'IP(src="1.2.3.0/30")', "describes 4 packets; give one"),
    ("a number", "17", "not a packet"),
    ("half an expression", 'IP(src="1.2.3.4"', "not a packet"),
    ("a division of nothing", '"a"/IP(src="1.2.3.4")', "expected a layer before '/'"),
    ("a payload beyond any packet", 'IP(src="1.2.3.4")/("x" * 70000)', "at most 65,535"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_is_refused(text: str, message: str) -> None:
    with pytest.raises(PacketError, match=re.escape(message)):
        frame_of(text, HOST)


def test_nothing_is_evaluated_or_looked_up() -> None:
    with patch("builtins.eval") as evaluate, patch("socket.getaddrinfo") as look_up:
        frame_of('IP(src="1.2.3.4")/TCP()', HOST)
        with pytest.raises(PacketError):
            frame_of('IP(src="www.example.com")', HOST)
    evaluate.assert_not_called()
    look_up.assert_not_called()


def test_the_fault_is_pointed_at() -> None:
    with pytest.raises(PacketError) as caught:
        frame_of('IP(src="1.2.3.4")/TPC()', HOST)
    first, text, caret = str(caught.value).splitlines()
    assert "did you mean 'TCP'?" in first
    assert text[caret.index("^") :].startswith("TPC()")


def test_a_network_stands_for_its_addresses() -> None:
    assert len(frames_of('IP(src="1.2.3.0/30")/UDP()', HOST)) == 4

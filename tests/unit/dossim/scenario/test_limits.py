"""The limits of scenarios and expressions: each with its message, checked before anything is built."""

from __future__ import annotations

import json
import re
import resource
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dossim.cli import main
from dossim.model.errors import PacketError, ScenarioError
from dossim.packet.capture import Capture
from dossim.scenario.budget import DEFAULT, LARGE, Budget, Limits, size_of
from dossim.scenario.expression import MOST_PACKETS, assumed_in, count_of, frame_of, frames_of
from dossim.scenario.findings import InvalidScenario
from dossim.scenario.generate import generate
from dossim.scenario.load import load_scenario
from dossim.scenario.model import GeneratedTraffic, Generator, LeaveOut, Parameters
from dossim.scenario.run import ScenarioRunner
from enforcer.model.choices import ModeChoice

HOST = {4: ip_address("10.10.10.10"), 6: ip_address("fd00::10")}
UDP = 'IP(src="1.2.3.4")/UDP()'
HOW_TO = Path(__file__).parents[4] / "scenarios" / "policies" / "how-to.yaml"

# (text, why it is refused)
TOO_MUCH = {
    "minus signs": ("-" * 50_000 + "1", "only layers"),
    "minus signs in a field": (f"IP(ttl={'-' * 50_000}1)", "only layers"),
    "brackets": ("[" * 50_000, "brackets nested deeper than 32"),
    "closed brackets": ("(" * 5_000 + ")" * 5_000, "brackets nested deeper than 32"),
    "lists in a field": (f"TCP(options={'[' * 5_000}{']' * 5_000})", "brackets nested deeper than 32"),
    "layers": ("/".join(["IP()"] * 1_500), "more than 64 layers"),
    "payloads": (f"{UDP}{'/b' * 0}" + "/'x'" * 1_500, "more than 64 layers"),
    "digits": (f"IP(ttl={'9' * 4_000})", "a number of 4,000 digits"),
    "hexadecimal digits": (f"IP(ttl=0x{'f' * 4_000})", "a number of 4,002 digits"),
    "sums": ("1" + "+1" * 50_000, "only layers"),
    "powers": ("9" + "**9" * 50_000, "only layers"),
    "one power": ("9**9**9**9", "only layers"),
    "products": ("'x'" + "*9" * 100, "at most 65,535"),
    "attributes": ("a" + ".b" * 50_000, "only layers"),
    "negations": ("not " * 50_000 + "1", "only layers"),
    "functions": ("lambda: " * 20_000 + "1", "only layers"),
    "choices": ("1 if 1 else " * 9_000 + "1", "only layers"),
    "code in a string": ("f'{" + "-" * 50_000 + "1}'", "only layers"),
    "code in a raw string": ("Rf'{" + "-" * 50_000 + "1}'", "only layers"),
    "characters": (f"{UDP}/'{'x' * (1 << 18)}'", "characters; at most 262,144"),
    "words": ("[" + "1," * 30_000 + "]", "more than 20,000 words"),
    "a NUL": ("IP(\0)", "not a packet"),
    "a surrogate": ("IP('\udc80')", "not a packet"),
    "half a string": ("IP('", "not a packet"),
    "a repeated string": (f"{UDP}/('x' * 10**9)", "only layers"),
    "repeated often": (f"{UDP}/('x' * 1000000000)", "at most 65,535"),
    "two long payloads": ("IP(src='1.2.3.4')/('x' * 60000)/('x' * 60000)", "cannot build it"),
    "a network": ('IP(src="0.0.0.0/0")', "describes 4,294,967,296 packets; at most 65,536"),
    "one packet too many": (f"{UDP[:-1]}dport=(0, 65535), sport=[1, 2])", "describes 131,072 packets"),
    "a network of IPv6": ('IPv6(src="::/0")', "more than 2^128"),
    "networks": ('IPv6(src="::/0", dst="::/0")', "more than 2^128"),
    "a range of addresses": ('IP(src=("0.0.0.0", "255.255.255.255"))', "describes 4,294,967,296 packets"),
    "a range of numbers": ("IP(src='1.2.3.4')/TCP(seq=(0, 4294967295))", "describes 4,294,967,296 packets"),
    "ranges of ranges": ("IP(src='1.2.3.4')/TCP(sport=(1,60000), dport=(1,60000))", "describes 3,600,000,000 packets"),
    "an endless range": ("IP(src='1.2.3.4', ttl=(1, 5, 0))", "Scapy cannot build it"),
    "a list of networks": ('IP(src=["10.0.0.0/9", "10.0.0.0/9"])', "describes 16,777,216 packets"),
    "headers": ("IP(src='10.0.0.0/16')" + "/UDP()" * 30, "headers; at most"),
    "no packet": ('IP(src=[])', "describes no packet"),
    "a range backwards": ('IP(src=("10.0.0.9", "10.0.0.1"))', "describes no packet"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_an_expression_beyond_the_limits_is_one_short_sentence(text: str, message: str) -> None:
    with pytest.raises(PacketError, match=re.escape(message)) as caught:
        frames_of(text, HOST)
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize("text", [row[0] for row in TOO_MUCH.values()], ids=TOO_MUCH)
def test_explain_and_validate_say_it_and_end_with_2(tmp_path: Path, text: str) -> None:
    path = tmp_path / "it.scenario.yaml"
    host = {"addresses": ["10.10.10.10", "fd00::10"]}
    traffic = [{"generate": "scapy", "packet": text, "label": "a"}]
    path.write_text(json.dumps({"name": "x", "policy": [], "host": host, "traffic": traffic}))
    for words in (["explain", "-p", str(HOW_TO), "--", text], ["run", "--predict-only", str(path)]):
        result = dossim(*words)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output


def dossim(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("IP(src='10.0.0.0/16')/UDP()", MOST_PACKETS),
        ("IP(src=['1.2.3.4', '1.2.3.0/30'], ttl=(1, 3))/TCP(dport=[80, (8000, 8009)])", 5 * 3 * 11),
        ("IP(src='1.2.3.4')/TCP(options=[('MSS', 1460), ('NOP', None)])", 1),
        ("IP(src='1.2.3.4')/UDP()/DNS(qd=[DNSQR(), DNSQR()])", 1),
        ("IP(src='1.2.3.4')/IP(src='1.2.3.0/30', dst='1.1.1.1')/UDP(dport=[1, 2])", 8),
    ],
)
def test_packets_are_counted_as_they_are_built(text: str, number: int) -> None:
    assert count_of(text) == number
    if number < MOST_PACKETS:
        frames = frames_of(text, HOST)
        assert len(frames) == len(set(frames)) == number


def test_the_packets_are_scapy_s_in_scapy_s_order() -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    from dossim.scenario.template import HOST_MAC, OUTSIDE_MAC

    text = 'IP(src="1.2.3.0/30", dst="10.10.10.10", ttl=[3, 5])/TCP(sport=[1, 2], dport=(80, 82))/"x"'
    packets = IP(src="1.2.3.0/30", dst="10.10.10.10", ttl=[3, 5]) / TCP(sport=[1, 2], dport=(80, 82)) / "x"
    wanted = [bytes(packet) for packet in Ether(dst=HOST_MAC, src=OUTSIDE_MAC) / packets]
    assert frames_of(text, HOST) == wanted


# --- traffic ----------------------------------------------------------------------------------------------------------

ROWS: dict[str, dict[str, Any]] = {
    "bytes": {"generate": "udp-flood", "count": 1_000_000, "size": 65_000},
    "bytes of fragments": {"generate": "fragments", "count": 1_000_000, "size": 65_000, "mtu": 68},
    "packets of fragments": {"generate": "fragments", "count": 2_000, "size": 65_000, "mtu": 68},
    "packets": {"generate": "tcp-handshakes", "count": 600_000},
    "pings": {"generate": "icmp-flood", "count": 5_000, "size": 65_000},
    "an expression, often": {"generate": "scapy", "count": 1_000, "packet": 'IP(src="10.0.0.0/16")/UDP()'},
    "a large expression, often": {"generate": "scapy", "count": 5_000, "packet": f'{UDP}/("x" * 65000)'},
}


def scenario(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "it.scenario.yaml"
    given = [{"label": "a", **({} if row.get("generate", "scapy") == "scapy" else {"sources": "203.0.113.0/24"}), **row}
             for row in rows]  # fmt: skip
    for row in given:
        if "capture" in row:
            row.pop("sources", None)
    host = {"addresses": ["10.10.10.10"]}
    path.write_text(json.dumps({"name": "x", "policy": [], "host": host, "traffic": given}))
    return path


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_too_much_traffic_is_refused_before_it_is_built(tmp_path: Path, row: dict[str, Any]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((InvalidScenario, ScenarioError, PacketError), match="without --allow-large"):
        ScenarioRunner(load_scenario(scenario(tmp_path, row))).predict(ModeChoice.AUTO)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 600_000, "KiB"


def test_it_is_the_total_that_counts(tmp_path: Path) -> None:
    row = {"generate": "syn-flood", "count": 400_000}
    assert load_scenario(scenario(tmp_path, row, row))
    with pytest.raises(InvalidScenario, match=re.escape("traffic[2]: 1,200,000 packets up to here; at most 1,000,000")):
        load_scenario(scenario(tmp_path, row, row, row))
    assert load_scenario(scenario(tmp_path, row, row, row), limits=LARGE)


def test_captures_count_too(tmp_path: Path) -> None:
    Capture.from_frames([bytes(100)] * 60).write(tmp_path / "x.pcap")
    path = scenario(tmp_path, {"capture": "x.pcap"}, {"capture": "x.pcap"})
    limits = Limits(packets=100)
    with pytest.raises(ScenarioError, match="120 packets up to here; at most 100"):
        ScenarioRunner(load_scenario(path, limits=limits), limits=limits).predict(ModeChoice.AUTO)
    assert len(ScenarioRunner(load_scenario(path)).traffic.capture) == 120


def test_allow_large_lifts_the_totals(tmp_path: Path) -> None:
    path = scenario(tmp_path, *[{"generate": "syn-flood", "count": 300_000}] * 4)
    refused = dossim("validate", str(path))
    assert refused.exit_code == 2
    assert "it.scenario.yaml:1:" in refused.output
    assert dossim("validate", str(path), "--allow-large").exit_code == 0


@pytest.mark.parametrize("word", [word for word in Generator if word is not Generator.SCAPY], ids=str)
@pytest.mark.parametrize("sources", ["203.0.113.0/24", "2001:db8::/64"])
def test_what_a_row_takes_is_known_before(word: Generator, sources: str) -> None:
    if word is Generator.ARP and ":" in sources:
        return
    for size, mtu in ((None, 1500), (0, 68), (65_000, 1280), (1001, 576)):
        given = Parameters(
            count=3,
            sources=(ip_network(sources),),
            flags=("S", "A"),
            size=size,
            mtu=mtu,
            vlan=(5, 6),
            query="a.example",
        )
        traffic = GeneratedTraffic("x", word, given)
        frames = generate(traffic, HOST)
        packets, buf = size_of(traffic)
        assert packets >= len(frames) >= packets - 3
        assert buf >= sum(map(len, frames)) >= buf - 64 * len(frames)


def test_fragments_left_out_are_not_too_few() -> None:
    given = Parameters(count=5, size=3000, leave_out=LeaveOut.FIRST)
    traffic = GeneratedTraffic("x", Generator.FRAGMENTS, given)
    assert size_of(traffic)[0] >= len(generate(traffic, HOST))


def test_a_budget_without_limits_is_none_in_practice() -> None:
    budget = Budget(LARGE)
    budget.take(10**9, 10**12)
    assert LARGE.packets > DEFAULT.packets


# --- fields that Scapy would choose -----------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["UDP(dport=9)", "TCP(dport=80)", "UDP()/DNS()", "UDP()/NTP()", "SCTP()"])
def test_a_source_port_that_is_left_out_is_ephemeral(transport: str) -> None:
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    assert IPv6
    for header in ('IP(src="203.0.113.9")', 'IPv6(src="2001:db8::1")', 'Ether()/Dot1Q(vlan=5)/IP(src="203.0.113.9")'):
        frame = Ether(frame_of(f"{header}/{transport}", HOST))
        assert frame.sport == 49152
        assert f"{transport[: transport.index('(')]} source port 49152" in assumed_in(f"{header}/{transport}")


def test_a_source_port_that_is_given_stays() -> None:
    from scapy.layers.l2 import Ether

    assert Ether(frame_of('IP(src="203.0.113.9")/UDP(sport=53, dport=9)', HOST)).sport == 53
    assert assumed_in('IP(src="203.0.113.9")/UDP(sport=53, dport=9)') == []


def test_explain_names_what_was_assumed() -> None:
    words = ["explain", "-p", str(HOW_TO), 'IP(src="203.0.113.9")/UDP(dport=9)']
    table = dossim(*words)
    assert "not in the expression, assumed: UDP source port 49152" in table.output
    assert "dropped at driver" in table.output
    data = json.loads(dossim(*words, "-o", "json").output)
    assert data["assumed"] == ["UDP source port 49152"]
    given = json.loads(dossim(*words[:-1], 'IP(src="203.0.113.9")/UDP(dport=9, sport=53)', "-o", "json").output)
    assert (given["assumed"], given["fate"]) == ([], "delivered")


def test_only_layers_of_scapy_s_own_protocols_may_be_named() -> None:
    import scapy.layers.bluetooth
    import scapy.layers.dhcp

    assert scapy.layers.bluetooth
    assert "scapy.layers.dhcp" in sys.modules
    for name in ("HCI_Hdr", "BOOTP", "rtmsghdr"):
        with pytest.raises(PacketError, match="no layer is called"):
            frame_of(f"{name}()", HOST)

"""The measured programs and rule sets: each drops by source, on one interface."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from bench.traffic import BPF, NETNS, OWN_ADDRESS, Pair, Traffic, compiled
from enforcer.backends.xdp.addresses import AddressTables, make_tables
from enforcer.backends.xdp.compile.contents import contents_of
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import atoms, render
from enforcer.backends.xdp.state import generation
from enforcer.backends.xdp.state.layout import TABLES
from enforcer.backends.xdp.tables.classes import classify
from enforcer.kernel.bpf import toolchain
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.netns import entered
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.resources import DEFAULT_FAILSAFE_INBOUND, DEFAULT_FAILSAFE_OUTBOUND
from enforcer.policy.ruletable import Entry, IpSet, RuleTable
from tests.support.entries import SideMatch, entry_of

FILTER_MOST = 1_000
SET = "s:deny"
DENY = entry_of("deny", Action.DENY, source=SideMatch(ip_set=SET))


class Unable(Exception):
    """A contender cannot do this; the message says why."""


@dataclass
class Running:
    """A contender attached to its own pair. ``load_s``: from the call until it filters.

    ``program``: descriptor of the XDP program, if the contender is nothing but one.
    """

    pair: Pair
    load_s: float
    memory: int | None = None
    program: int | None = None


def plan_of(nets: Nets, *entries: Entry, interface: str = "eth0") -> InterfacePlan:
    """A deny list, or ``entries`` instead of it, with Calico's default failsafes."""
    table = RuleTable(
        interface,
        "bench",
        entries or (DENY,),
        failsafe_inbound=DEFAULT_FAILSAFE_INBOUND,
        failsafe_outbound=DEFAULT_FAILSAFE_OUTBOUND,
        sets={SET: IpSet(SET, "deny", nets)},
    )
    planned = tuple(PlannedEntry(entry, Stage.DRIVER) for entry in table.ingress)
    return InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, planned, held=len(table.ingress))


def parse_only(traffic: Traffic, stack: ExitStack, nets: Nets, misses: bool) -> Running:
    pair = traffic.pair()
    program = traffic.program("parse_only", misses=misses)
    stack.enter_context(pair.attach(program))
    return Running(pair, 0.0, program=program)


def ours(traffic: Traffic, stack: ExitStack, nets: Nets, misses: bool, plan: InterfacePlan | None = None) -> Running:
    """The enforcer's program and tables; for misses compiled to drop what it would pass."""
    pair = traffic.pair()
    started = time.perf_counter()
    plan = plan or plan_of(nets)
    classified = classify(atoms(plan))
    tables = stack.enter_context(make_tables(LIBBPF, classified))
    rows = render(plan)
    contents = contents_of(
        plan, rows, classified.members, tables.manifest.capacity, receiver=Receiver(OWN_ADDRESS, pair.far), ipv6=True
    )
    obj = toolchain.prebuilt()
    if misses:
        watching = ("-DWATCH_DEVICE",) if obj == toolchain.WATCHING else ()
        source, target = BPF / "xdp_untracked.bpf.c", traffic.directory / "xdp_untracked.bpf.o"
        obj = compiled(source, target, *watching, misses=True)
    with patch.object(toolchain, "prebuilt", lambda: obj):
        loaded = generation.load(LIBBPF, contents, tables.maps)
    stack.enter_context(loaded.obj)
    program = loaded.obj.program(loaded.program).fd
    stack.enter_context(pair.attach(program))
    return Running(pair, time.perf_counter() - started, memory_of(tables), program)


def memory_of(tables: AddressTables) -> int:
    return sum(memlock(tables.maps[name]) for name in TABLES)


def memlock(item: Map) -> int:
    """Bytes of a map, as the kernel reports them."""
    lines = Path(f"/proc/self/fdinfo/{item.fd}").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("memlock:")))


def calico_shape(traffic: Traffic, stack: ExitStack, nets: Nets, misses: bool) -> Running:
    """One LPM trie per family, filled in batches (Calico calls bpftool for each CIDR)."""
    started = time.perf_counter()
    obj = traffic.objects[misses]
    with obj.map("failsafe") as failsafe:
        for item in DEFAULT_FAILSAFE_INBOUND:
            failsafe.update(bytes([item.protocol, 0]) + item.port.to_bytes(2, "big"), b"\1")
    memory = 0
    for name, keys in (("trie4", _keys4(nets)), ("trie6", _keys6(nets))):
        with obj.map(name) as trie:
            trie.update_batch(keys.tobytes(), np.ones(len(keys), np.uint32).tobytes(), len(keys))
            memory += memlock(trie)
        stack.callback(_emptied, obj, name, keys)
    pair = traffic.pair()
    program = traffic.program("calico_shape", misses=misses)
    stack.enter_context(pair.attach(program))
    return Running(pair, time.perf_counter() - started, memory, program)


# For mypy: of several types
def _emptied(obj: generation.XdpObject, name: str, keys: np.ndarray) -> None:  # type: ignore[type-arg]
    with obj.map(name) as trie:
        trie.delete_batch(keys.tobytes(), len(keys))


def _keys4(nets: Nets) -> np.ndarray:  # type: ignore[type-arg]  # of several types
    keys = np.empty(len(nets.net4), np.dtype([("length", "=u4"), ("address", ">u4")]))
    keys["length"], keys["address"] = nets.len4, nets.net4
    return keys


def _keys6(nets: Nets) -> np.ndarray:  # type: ignore[type-arg]  # of several types
    keys = np.empty(len(nets.net6), np.dtype([("length", "=u4"), ("high", ">u8"), ("low", ">u8")]))
    keys["length"], keys["high"], keys["low"] = nets.len6, nets.net6[:, 0], nets.net6[:, 1]
    return keys


def xdp_filter(traffic: Traffic, stack: ExitStack, nets: Nets, misses: bool) -> Running:
    """xdp-filter of xdp-tools: single addresses in a hash map of 10,000, each added by a separate process."""
    if misses or len(nets) > FILTER_MOST or (nets.len4 != 32).any():
        raise Unable(f"holds single addresses, added one process at a time: measured with {FILTER_MOST:,} at most")
    if shutil.which("xdp-filter") is None:
        raise Unable("not installed: apt-get install xdp-tools")
    running = Running(traffic.pair(), 0.0)
    script = "mount -t bpf bpf /sys/fs/bpf\nset -e\nxdp-filter load eth0 -m native -f ipv4 -p allow\n"
    script += "".join(f"xdp-filter ip {_dotted(address)} -m src\n" for address in nets.net4.tolist())
    # The child has its own BPF file system for the pins; the program stays attached until its interface is deleted.
    return replace(running, load_s=_commands(running, ["unshare", "--mount", "sh"], script))


# -- in the stack: an skb is built, then dropped -----------------------------------------------------------------------


def empty_stack(traffic: Traffic, stack: ExitStack, nets: Nets, misses: bool) -> Running:
    """An skb without any rules, which routing drops (no IP addresses are configured)."""
    pair = traffic.pair()
    stack.enter_context(pair.attach(traffic.program("pass")))
    return Running(pair, 0.0)


def _commands(running: Running, words: list[str], text: str, limit_s: float = 60) -> float:
    started = time.perf_counter()
    with entered(NETNS / running.pair.namespace):
        try:
            done = subprocess.run(words, input=text, text=True, capture_output=True, timeout=limit_s, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise Unable(str(error)) from error
    if done.returncode:
        raise Unable((done.stderr.strip().splitlines() or ["no reason"])[0][:200])
    return time.perf_counter() - started


def _disjoint(nets: Nets) -> list[str]:
    """As ranges that do not overlap: an interval set takes nothing else."""
    first, last = nets.intervals4
    return [f"{_dotted(a)}-{_dotted(b)}" for a, b in zip(first.tolist(), last.tolist(), strict=True)]


def _dotted(address: int) -> str:
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def _nft(traffic: Traffic, stack: ExitStack, nets: Nets, family: str, hook: str) -> Running:
    running = empty_stack(traffic, stack, nets, False)
    elements = _disjoint(nets)
    parts = [", ".join(elements[at : at + 10_000]) for at in range(0, len(elements), 10_000)]
    script = f"add table {family} b\nadd set {family} b deny {{ type ipv4_addr; flags interval; }}\n"
    script += f"add chain {family} b c {{ {hook} }}\nadd rule {family} b c ip saddr @deny drop\n"
    script += "".join(f"add element {family} b deny {{ {part} }}\n" for part in parts)
    return replace(running, load_s=_commands(running, ["nft", "-f", "-"], script))


def nft_netdev(traffic: Traffic, stack: ExitStack, nets: Nets, misses: bool) -> Running:
    return _nft(traffic, stack, nets, "netdev", "type filter hook ingress device eth0 priority 0;")


def nft_raw(traffic: Traffic, stack: ExitStack, nets: Nets, misses: bool) -> Running:
    return _nft(traffic, stack, nets, "ip", "type filter hook prerouting priority raw;")


def ipset_raw(traffic: Traffic, stack: ExitStack, nets: Nets, misses: bool) -> Running:
    running = empty_stack(traffic, stack, nets, False)
    cidrs = zip(nets.net4.tolist(), nets.len4.tolist(), strict=True)
    script = f"create deny hash:net maxelem {max(65_536, 2 * len(nets))} hashsize 1024\n"
    script += "".join(f"add deny {_dotted(net)}/{length}\n" for net, length in cidrs)
    took = _commands(running, ["ipset", "restore"], script)
    rule = ["iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-m", "set", "--match-set", "deny", "src", "-j", "DROP"]
    return replace(running, load_s=took + _commands(running, rule, ""))

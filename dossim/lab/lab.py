"""Lab: builds a Host out of two network namespaces and removes it again completely.

::

    peer namespace                       victim namespace
    wire0  ── veth ──────────────────►   eth0      the interface under attack (Host.interface)
    wire1  ◄─ veth (only with routes) ─  inside0   leads to the networks beyond the host (Host.inside)

Replies of the victim leave by its default route and are discarded by the peer, which has no addresses and no IPv6. A
thread enters the victim only inside :meth:`Lab.victim` and always comes back (:mod:`enforcer.kernel.netns`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv6Interface, IPv6Network
from types import TracebackType

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dossim.lab import ethtool, names, sysctl
from dossim.lab.conntrack_max import restore_abandoned
from dossim.lab.python_iptables import python_iptables
from dossim.model.host import Host, Listener
from enforcer.kernel.conntrack import read_conntrack
from enforcer.kernel.netns import entered
from enforcer.model.conntrack import ConntrackFacts
from enforcer.model.errors import KernelError, PrivilegeError
from enforcer.model.nets import IPAddress
from enforcer.policy.resources import UDP
from enforcer.system.signals import held, unwinding

# Locally administered; the replayer's tags never begin with these bytes.
VICTIM_MAC = "06:00:00:00:00:01"
PEER_MAC = "06:00:00:00:00:02"
INSIDE_MAC = "06:00:00:00:00:03"
BEHIND_MAC = "06:00:00:00:00:04"

WIRE, WIRE_INSIDE = "wire0", "wire1"
# Next hops have neighbour entries of their own, so that no address is ever resolved on the wire.
_GATEWAY = {socket.AF_INET: "169.254.1.1", socket.AF_INET6: "fe80::1"}
_BEHIND = {socket.AF_INET: "169.254.1.2", socket.AF_INET6: "fe80::2"}

SO_RCVBUFFORCE = 33  # asm-generic/socket.h; not in Python's socket module
_RECEIVE_BUFFER_BYTES = 64 << 20
_LARGEST_MTU = 65535  # ETH_MAX_MTU
_LEAST_MTU6 = 1280  # IPV6_MIN_MTU
_RTN_LOCAL = 2  # linux/rtnetlink.h
_POLL_S, _POLLS = 0.002, 30_000  # a minute: workers of a busy machine may be late


class Lab:
    """A context manager: entering builds the host, leaving removes all of it.

    ``mtu`` is the largest layer-3 packet that will be sent (at least the host's own MTU); ``fragment_timeout_s`` how
    long the victim waits for missing fragments. Raises PrivilegeError without root.
    """

    def __init__(self, host: Host, *, mtu: int = 0, fragment_timeout_s: int = 1) -> None:
        self.host = host
        self.name = names.new_name()
        self.pin_root = names.pin_root(self.name)
        self.peer_name = f"{self.name}-peer"
        self.victim_name = f"{self.name}-victim"
        self._mtu = min(max(mtu, host.mtu), _LARGEST_MTU)
        self._fragment_timeout_s = fragment_timeout_s
        self._stack = ExitStack()
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> Lab:
        if os.geteuid() != 0:
            raise PrivilegeError(
                "creating a network namespace needs CAP_SYS_ADMIN; "
                "run as root or use 'dossim predict', which needs none"
            )
        names.reap()
        restore_abandoned()
        restore_abandoned()
        with ExitStack() as stack:
            stack.enter_context(unwinding())
            stack.callback(names.remove_pins, self.name)
            for name in (self.peer_name, self.victim_name):
                names.make_namespace(name, stack)
            self._build()
            stack.callback(self._close_listeners)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @contextmanager
    def victim(self) -> Iterator[None]:
        """The calling thread inside the victim's network namespace."""
        with entered(names.NETNS_DIR / self.victim_name):
            yield

    @contextmanager
    def peer(self) -> Iterator[None]:
        """The calling thread inside the peer's network namespace."""
        with entered(names.NETNS_DIR / self.peer_name):
            yield

    def quiet_offloads(self) -> None:
        """Switch GRO off: attaching native XDP to a veth switches it on, and it would merge packets (and their
        numbers).
        """
        with self.victim():
            ethtool.set_gro(self.host.interface, on=False)

    def conntrack_entries(self) -> int:
        """Connections the victim tracks now."""
        with self.victim():
            return sysctl.conntrack_entries()

    def conntrack(self) -> ConntrackFacts:
        """The victim's connection tracking table, its limits and counters."""
        with self.victim():
            return read_conntrack()

    def drain(self) -> None:
        """Read what the UDP listeners have queued, so that no datagram is dropped for lack of buffer space."""
        for listener in self._listeners:
            if listener.type == socket.SOCK_DGRAM:
                _drain(listener)

    # -- building -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        with self.peer():
            sysctl.quiet_peer()
        with self.victim():
            sysctl.quiet_victim(self.host, fragment_timeout_s=self._fragment_timeout_s)
            with held(), IPRoute() as ip:
                self._make_links(ip)
                with self.peer(), IPRoute() as outside:
                    for wire in self._wires():
                        outside.link("set", index=socket.if_nametoindex(wire), state="up")
                self._configure(ip)
            _track_connections()
            self._listeners = [_listen(listener) for listener in self.host.listen]

    def _wires(self) -> list[str]:
        return [WIRE, WIRE_INSIDE] if self.host.routes else [WIRE]

    def _make_links(self, ip: IPRoute) -> None:
        ip.link("set", index=socket.if_nametoindex("lo"), state="up")
        self._make_veth(ip, self.host.interface, VICTIM_MAC, WIRE, PEER_MAC, self._mtu)
        if self.host.routes:
            self._make_veth(ip, self.host.inside, INSIDE_MAC, WIRE_INSIDE, BEHIND_MAC, self.host.mtu)

    def _make_veth(self, ip: IPRoute, near: str, near_mac: str, far: str, far_mac: str, mtu: int) -> None:
        far_end = {"ifname": far, "address": far_mac, "mtu": mtu, "net_ns_fd": self.peer_name}
        ip.link("add", ifname=near, kind="veth", address=near_mac, mtu=mtu, peer=far_end)
        ip.link("set", index=socket.if_nametoindex(near), state="up")

    def _configure(self, ip: IPRoute) -> None:
        outside = socket.if_nametoindex(self.host.interface)
        wait_for_carrier(ip, outside)
        # Forwarding looks at the interface's IPv6 MTU and not at the route's (ip6_dst_mtu_maybe_forward).
        sysctl.write({f"ipv6/conf/{self.host.interface}/mtu": max(self.host.mtu, _LEAST_MTU6)})
        for address in self.host.addresses:
            flags = {"flags": 0x02} if isinstance(address, IPv6Interface) else {}  # IFA_F_NODAD
            ip.addr("add", index=outside, address=str(address.ip), prefixlen=address.network.prefixlen, **flags)
        for address in self.host.addresses:
            wait_for_address(ip, address.ip)
        for family, gateway in _GATEWAY.items():
            _neighbour(ip, outside, gateway, PEER_MAC)
            _route(ip, family, "default", gateway, outside, mtu=self.host.mtu)
        if self.host.routes:
            inside = socket.if_nametoindex(self.host.inside)
            for hop in _BEHIND.values():
                _neighbour(ip, inside, hop, BEHIND_MAC)
            for network in self.host.routes:
                family = socket.AF_INET6 if isinstance(network, IPv6Network) else socket.AF_INET
                _route(ip, family, str(network), _BEHIND[family], inside)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()


def wait_for_carrier(ip: IPRoute, index: int) -> None:
    """Return when the kernel has noticed that the interface has a carrier: both ends of its veth pair are up.

    It notices that in a worker (net/core/link_watch.c). Before, the end that came up first sends nothing, and a bridge
    forwards nothing to it (dev_activate, br_port_carrier_check); then the interface's IPv6 MTU is set again to that of
    the device (addrconf_notify), whatever was written before. Raises KernelError after a minute without.
    """
    for _ in range(_POLLS):
        if ip.link("get", index=index)[0].get("IFLA_OPERSTATE") == "UP":
            return
        time.sleep(_POLL_S)
    raise KernelError("the interface is up and has no carrier: its peer is not up")


def wait_for_address(ip: IPRoute, address: IPAddress) -> None:
    """Return when the namespace takes packets to the address. The kernel makes the local route of an IPv6 address in a
    worker, even without duplicate address detection (addrconf_dad_work). Raises KernelError after a minute without.
    """
    for _ in range(_POLLS):
        with suppress(NetlinkError):  # before, there may be no route at all
            if ip.route("get", dst=str(address))[0]["type"] == _RTN_LOCAL:
                return
        time.sleep(_POLL_S)
    raise KernelError(f"{address} was added, and has no local route")


def _neighbour(ip: IPRoute, index: int, address: str, mac: str) -> None:
    ip.neigh("add", ifindex=index, dst=address, lladdr=mac, state="permanent")


def _route(ip: IPRoute, family: int, destination: str, gateway: str, index: int, *, mtu: int = 0) -> None:
    metrics = {"metrics": {"mtu": mtu}} if mtu else {}
    ip.route("add", family=family, dst=destination, gateway=gateway, oif=index, flags=["onlink"], **metrics)


def _track_connections() -> None:
    """A connection-tracking rule, as on every firewalled host: conntrack and defragmentation run in a namespace once a
    rule needs them.
    """
    iptc = python_iptables()
    for family in (iptc.Table, iptc.Table6):
        table = family(family.FILTER)
        table.refresh()  # python-iptables caches tables by name: the handle may belong to another namespace
        rule = iptc.Rule() if family is iptc.Table else iptc.Rule6()
        rule.create_match("conntrack").ctstate = "RELATED,ESTABLISHED"
        rule.target = iptc.Target(rule, "ACCEPT")
        iptc.Chain(table, "INPUT").append_rule(rule)


def _listen(listener: Listener) -> socket.socket:
    """A listening socket on all addresses of both families of the current namespace."""
    kind = socket.SOCK_DGRAM if listener.protocol == UDP else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == socket.SOCK_DGRAM:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
    sock.bind(("::", listener.port))
    if kind == socket.SOCK_STREAM:
        sock.listen(1024)
    return sock


def _drain(sock: socket.socket) -> None:
    while True:
        try:
            sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error for a reply we never sent: continue reading
            continue

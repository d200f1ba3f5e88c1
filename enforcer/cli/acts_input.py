"""What the commands of emergency acts are given: CIDRs, an end, an author; and what is known of their host."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

from enforcer.datastore.apiconfig import KUBERNETES, api_config
from enforcer.datastore.open import Place
from enforcer.emergency.protection import Facts
from enforcer.emergency.times import duration_s, point_s
from enforcer.kernel.links import LinkConn
from enforcer.model.errors import EnforcerError, UsageError
from enforcer.model.nets import IPAddress, IPNetwork, parse_cidr
from enforcer.system import files
from enforcer.system.files import UnreadableError

STDIN = "-"
DEFAULT_S = 4 * 3600
_RESOLV_CONF = Path("/etc/resolv.conf")
_PROC = Path("/proc")
_PARENTS_MAX = 50


def networks(given: Sequence[str], path: str | None) -> tuple[list[IPNetwork], list[str]]:
    """The CIDRs of the command line and of a file (``-``: stdin), and a note for each whose host bits were cleared.

    A line of a file has one CIDR; what follows a space, # or ; is a comment. Raises UsageError for the first that is
    none.
    """
    found: dict[IPNetwork, None] = {}
    notes: list[str] = []
    for where, text in [*(("", text) for text in given), *(_lines(path) if path else ())]:
        try:
            version, network, length = parse_cidr(text)
        except ValueError as error:
            raise UsageError(f"{where}{error}") from None
        bits = 32 if version == 4 else 128
        made = ip_network((network.to_bytes(bits // 8, "big"), length))
        if text.partition("/")[0] != str(made.network_address) and _has_host_bits(text, made):
            notes.append(f"{where}{text}: host bits are cleared: {made}")
        found[made] = None
    if not found:
        raise UsageError(f"{path}: has no CIDR" if path else "no CIDR: give some, or a file of them with -f")
    return list(found), notes


def _has_host_bits(text: str, made: IPNetwork) -> bool:
    with suppress(ValueError):
        address = ip_address(text.partition("/")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address) != made.network_address
    return False


def _lines(path: str) -> Iterator[tuple[str, str]]:
    """Where each CIDR of a file is, and its text."""
    if path == STDIN:
        text, name = sys.stdin.read(files.FILE_MAX_BYTES), "<stdin>"
    else:
        name = path
        try:
            text = files.read_text(path)
        except UnreadableError as error:
            raise UsageError(f"{path}: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace("#", " ").replace(";", " ").split()
        if words and not line.lstrip().startswith(("#", ";")):
            yield f"{name}:{number}: ", words[0]


def end_s(duration: str | None, until: str | None, permanent: bool, now_s: float) -> int | None:
    """The end that is asked for, as Unix time; None: never. Without any, four hours from now. Raises UsageError."""
    if sum((duration is not None, until is not None, permanent)) > 1:
        raise UsageError("--for, --until and --permanent exclude each other")
    if permanent:
        return None
    if until is None:
        return int(now_s) + (DEFAULT_S if duration is None else duration_s(duration))
    if (found := point_s(until)) <= now_s:
        raise UsageError(f"--until {until}: is in the past; now it is {time.strftime('%FT%TZ', time.gmtime(now_s))}")
    return found


def author() -> str:
    """Who acts: ``user@host``, the one who called sudo."""
    user = os.environ.get("SUDO_USER", "")
    with suppress(OSError, KeyError):
        user = user or getpass.getuser()
    return f"{user or os.getuid()}@{os.uname().nodename}"


# -- what must not be denied by mistake --------------------------------------------------------------------------------


def facts_of(place: Place) -> Facts:
    """The addresses that this host needs."""
    found: dict[IPAddress, str] = {}
    sources = (_own(), _ssh_peers(), _resolvers(), _datastore(place))
    for address, what in (item for source in sources for item in source):
        if not address.is_loopback:
            found.setdefault(address, what)
    return Facts(list(found.items()))


def _own() -> Iterator[tuple[IPAddress, str]]:
    with suppress(OSError, EnforcerError), LinkConn() as conn:
        names = {link.index: link.name for link in conn.links()}
        for index, address in conn.addresses():
            yield address, f"an address of this host ({names.get(index, index)})"
        for index, address in conn.next_hops():
            yield address, f"a gateway of this host (through {names.get(index, index)})"


def _resolvers() -> Iterator[tuple[IPAddress, str]]:
    with suppress(UnreadableError):
        for line in files.read_text(str(_RESOLV_CONF)).splitlines():
            match line.split():
                case ["nameserver", text, *_]:
                    with suppress(ValueError):
                        yield ip_address(text.partition("%")[0]), f"a resolver of this host ({_RESOLV_CONF})"


def _ssh_peers() -> Iterator[tuple[IPAddress, str]]:
    """Of this session. sudo removes the variable, so that of a parent counts."""
    texts = [os.environ.get("SSH_CONNECTION", ""), *map(_ssh_of, _parents())]
    for text in filter(None, texts):
        with suppress(ValueError):
            yield ip_address(text.split()[0].partition("%")[0]), "the peer of this SSH session"


def _parents() -> Iterator[int]:
    pid = os.getppid()
    for _ in range(_PARENTS_MAX):
        if pid <= 1:
            return
        yield pid
        try:
            pid = int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return


def _ssh_of(pid: int) -> str:
    with suppress(OSError):
        for item in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            if item.startswith(b"SSH_CONNECTION="):
                return item.partition(b"=")[2].decode(errors="replace")
    return ""


def _datastore(place: Place) -> Iterator[tuple[IPAddress, str]]:
    for host in _datastore_hosts(place):
        with suppress(OSError, UnicodeError):
            for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
                yield ip_address(str(address[0]).partition("%")[0]), f"the datastore ({host})"


def _datastore_hosts(place: Place) -> list[str]:
    if place.kind == "files":
        return []
    api = api_config(place.config)
    if place.kind == KUBERNETES:
        from enforcer.datastore.kubernetes.config import kubernetes_config

        return [kubernetes_config(api).server.host]
    from enforcer.datastore.etcd.config import etcd_config

    return [item.target.rpartition(":")[0].strip("[]") for item in etcd_config(api).endpoints]

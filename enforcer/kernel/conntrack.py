"""Reads the connection tracking table's limits, settings and counters of the calling thread's network namespace.

``/proc/sys/net`` is that of the calling thread; ``/proc/net`` is that of the process, so the counters are read below
``/proc/thread-self``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from enforcer.model.conntrack import ConntrackFacts, ConntrackStatistics, Timeout

PROC = Path("/proc")
_SETTINGS = Path("sys/net/netfilter")
_STATISTICS = Path("thread-self/net/stat/nf_conntrack")
# Of CONNTRACK modules, those that are no helper (net/netfilter/Makefile).
_NO_HELPER = {"nf_conntrack_netlink", "nf_conntrack_bridge", "nf_conntrack_broadcast", "nf_conntrack_bpf"}
_ENTRIES = Path("thread-self/net/nf_conntrack")
_ENTRIES_MAX_BYTES = 1 << 20  # some 5,000 entries: enough to find a zone, little enough for a full table
_ZONE = re.compile(r"\bzone(?:-orig|-reply)?=(\d+)")
_PREFIX = "nf_conntrack_"


def read_conntrack(proc: Path = PROC) -> ConntrackFacts:
    """The facts. Never raises: what cannot be read is None, and named in ``unknown``."""
    reader = _Reader(proc)
    limit = reader.number("max")
    if limit is None and not (proc / _SETTINGS / "nf_conntrack_max").exists():
        why = (
            "nf_conntrack is not loaded, or this is not a host's /proc; it is loaded with the first rule that needs it"
        )
        return ConntrackFacts(
            unknown=(f"connection tracking: no {_SETTINGS / 'nf_conntrack_max'} below {proc}: {why}",)
        )
    timeouts = {item: reader.number(str(item)) for item in Timeout}
    return ConntrackFacts(
        max=limit,
        buckets=reader.number("buckets"),
        count=reader.number("count"),
        checksum=reader.switch("checksum"),
        tcp_loose=reader.switch("tcp_loose"),
        tcp_be_liberal=reader.switch("tcp_be_liberal"),
        timeouts={item: value for item, value in timeouts.items() if value is not None},
        helpers=reader.helpers(),
        zones=reader.zones(),
        statistics=reader.statistics(),
        unknown=tuple(reader.unknown),
    )


class _Reader:
    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self.unknown: list[str] = []

    def number(self, name: str) -> int | None:
        path = self._proc / _SETTINGS / f"{_PREFIX}{name}"
        text = self._text(path, path.name)
        if text is None:
            return None
        try:
            return int(text)
        except ValueError:
            self.unknown.append(f"{path.name}: expected a number, found {text.strip()[:40]!r}")
            return None

    def switch(self, name: str) -> bool | None:
        value = self.number(name)
        return None if value is None else bool(value)

    def helpers(self) -> tuple[str, ...] | None:
        """The loaded ones. A helper that is built into the kernel is in no list: unknown if conntrack is built in."""
        text = self._text(self._proc / "modules", "helpers (/proc/modules)")
        if text is None:
            return None
        names = [line.split(" ", 1)[0] for line in text.splitlines()]
        if "nf_conntrack" not in names:
            self.unknown.append("helpers: nf_conntrack is built into this kernel, and helpers may be too")
            return None
        return tuple(sorted(name for name in names if name.startswith(_PREFIX) and name not in _NO_HELPER))

    def zones(self) -> tuple[int, ...] | None:
        """Those of the first entries; rules that would put a flow into a zone are not read."""
        try:
            with open(self._proc / _ENTRIES) as entries:
                text = entries.read(_ENTRIES_MAX_BYTES)
        except OSError as error:
            self.unknown.append(f"zones (/proc/net/nf_conntrack): {error.strerror}")
            return None
        if len(text) == _ENTRIES_MAX_BYTES:
            self.unknown.append(f"zones: of the first {text.count(chr(10)):,} entries only")
        return tuple(sorted({int(zone) for zone in _ZONE.findall(text)}))

    def statistics(self) -> ConntrackStatistics | None:
        """A line for each CPU, in hexadecimal, below the names of the columns."""
        text = self._text(self._proc / _STATISTICS, "statistics (/proc/net/stat/nf_conntrack)")
        if text is None:
            return None
        try:
            names, *cpus = (line.split() for line in text.splitlines())
            totals = {name: sum(int(cpu[at], 16) for cpu in cpus) for at, name in enumerate(names)}
            return ConntrackStatistics(totals["drop"], totals["early_drop"], totals["insert_failed"])
        except (ValueError, KeyError, IndexError):
            self.unknown.append("statistics (/proc/net/stat/nf_conntrack): not the columns that were expected")
            return None

    def _text(self, path: Path, what: str) -> str | None:
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            self.unknown.append(f"{what}: {reason}")
            return None

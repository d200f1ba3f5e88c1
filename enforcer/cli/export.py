"""``enforcer export``: what this host denies, for routers and other firewalls."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from enforcer.cli.acts import policy_options
from enforcer.cli.driver import enforcer_of
from enforcer.cli.options import pin_root_option
from enforcer.cli.support import echo, echo_json, require_privilege, verbose_option, warn
from enforcer.export.announce import HOLD_S
from enforcer.export.render import ExportFormat
from enforcer.model.errors import EnforcerError, UsageError

if TYPE_CHECKING:
    from enforcer.datastore.open import Place
    from enforcer.export.announce import Step
    from enforcer.export.select import Count, Selection
    from enforcer.policy.resources import Resources

NOTHING = 1  # the exit code
_ROUTER_TOP = 1000  # rules that most routers hold


@click.command()
@click.option(
    "--format",
    "kind",
    type=click.Choice([str(item) for item in ExportFormat]),
    required=True,
    help="exabgp: flowspec as commands of ExaBGP's API; json; ipset: for 'ipset restore -exist'; nft: for 'nft -f'.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 1_000_000),
    help=f"At most this many rules, from the entries that drop most. Default: all; exabgp: {_ROUTER_TOP}.",
)
@click.option("--follow", is_flag=True, help="For ExaBGP: keep running, announce new rules, withdraw ended ones.")
@click.option("--every", type=click.IntRange(5, 3600), default=30, show_default=True, metavar="SECONDS",
              help="With --follow: how often the policy and the counters are read.")  # fmt: skip
@click.option("--hold", type=click.IntRange(0, 86400), default=int(HOLD_S), show_default=True, metavar="SECONDS",
              help="With --follow: withdraw what is no longer denied after this time; ended acts at once.")  # fmt: skip
@policy_options
@pin_root_option
@verbose_option
def export(
    kind: str,
    top: int | None,
    follow: bool,
    every: int,
    hold: int,
    files: tuple[Path, ...],
    datastore: str,
    datastore_config: Path | None,
    emergency_dir: Path | None,
    node: str,
    pin_root: Path | None,
) -> int:
    """Print the sources from which this host denies every packet, to be denied upstream.

    Flowspec rules (exabgp) always have a destination: expectedIPs of this node's HostEndpoints. Sources that the policy
    lets pass in part (an earlier Allow, ports) are left out and named on stderr. The kernel counts entries, not
    sources: --top ranks the lists by the drops of their entry, and exports a list as a whole or not at all.

    \b
    Example:
      enforcer export --format json --policy /etc/enforcer
      enforcer export --format exabgp --follow --top 500 --datastore etcd
      enforcer export --format nft --policy /etc/enforcer | ssh edge nft -f -
    """
    from enforcer.cli.acts import place_of
    from enforcer.export.render import as_data, as_exabgp, as_ipset, as_nft

    if follow and kind != ExportFormat.EXABGP:
        raise UsageError("--follow is for --format exabgp")
    if kind == ExportFormat.EXABGP and top is None:
        top = _ROUTER_TOP
    place = place_of(datastore, files, datastore_config, emergency_dir)
    exporter = _Exporter(place, node, pin_root, top, destinations=kind == ExportFormat.EXABGP)
    if follow:
        return _follow(exporter, every, hold)
    found = exporter.select()
    match ExportFormat(kind):
        case ExportFormat.JSON:
            echo_json(as_data(found.rules))
        case ExportFormat.EXABGP:
            for rule in found.rules:
                echo(as_exabgp("announce", rule.flow))
        case ExportFormat.IPSET:
            for line in as_ipset(found.rules):
                echo(line)
        case ExportFormat.NFT:
            for line in as_nft(found.rules):
                echo(line)
    return 0 if found.rules else NOTHING


class _Exporter:
    """Reads policy and counters, and tells each thing that is left out once."""

    def __init__(self, place: Place, node: str, pin_root: Path | None, top: int | None, *, destinations: bool) -> None:
        self._place, self._node, self._pin_root = place, node, pin_root
        self._top, self._destinations = top, destinations
        self._told: set[str] = set()
        self._last: Resources | None = None  # a list with a fault is still denied here, so it stays announced

    def select(self) -> Selection:
        """Raises EnforcerError."""
        from enforcer.cli.acts import GuardError, loaded_of
        from enforcer.export.select import select

        loaded = loaded_of(self._place, self._node, self._last, self.tell)
        if loaded.left_out and self._last is None:
            unknown = ", ".join(loaded.left_out)
            raise GuardError(f"nothing is exported while it is unknown what {unknown} denies: correct it")
        resources = self._last = loaded.resources
        if self._node not in (nodes := {item.node for item in resources.host_endpoints}):
            known = ", ".join(sorted(nodes)) or "none"
            raise UsageError(f"--node {self._node}: this node has no HostEndpoint; nodes with HostEndpoints: {known}")
        found = select(
            resources,
            self._node,
            self._counts(),
            top=self._top,
            destinations=self._destinations,
            now_s=time.time(),
        )
        for text in (*found.notes, *found.left_out):
            self.tell(text)
        if not found.rules:
            self.tell(f"nothing to export: no HostEndpoint denies every packet of a source on node {self._node!r}")
        return found

    def tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            warn(text)

    def _counts(self) -> Mapping[str, Count] | None:
        """The drops of each entry; None if nothing has to be ranked."""
        from enforcer.export.select import Count

        if self._top is None:
            return None
        require_privilege("ranking by drop counters", xdp=False)
        found: dict[str, Count] = {}
        for item in enforcer_of("", self._pin_root).counters():
            before = found.get(item.entry, Count())
            found[item.entry] = Count(before.packets + item.packets, before.bytes + item.bytes)
        return found


def _follow(exporter: _Exporter, every: int, hold: int) -> int:
    """Until ExaBGP ends, or SIGTERM. What cannot be read now changes nothing that is announced.

    Raises UsageError if the first reading does: an option is wrong.
    """
    from enforcer.export.announce import Announcer

    stop, announcer = threading.Event(), Announcer(float(hold))

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    threading.Thread(target=_answers, args=(stop,), daemon=True).start()
    has_tried = has_read = False
    while not (stop.is_set() and has_tried):  # the first time also shows whether the options are right
        has_tried = True
        try:
            rules = exporter.select().rules
            has_read = True
        except EnforcerError as error:
            if isinstance(error, UsageError) and not has_read:
                raise
            exporter.tell(f"{error}; what is announced stays")
        else:
            _say(announcer.step(rules, time.time()))
        stop.wait(every)
    _say(announcer.end())
    return 0


def _say(steps: list[Step]) -> None:
    from enforcer.export.render import as_exabgp

    for verb, flow in steps:
        echo(as_exabgp(verb, flow))
    sys.stdout.flush()


def _answers(stop: threading.Event) -> None:
    """ExaBGP answers each command with done or error, which must be read; the end of it is its own end."""
    for line in sys.stdin:
        if line.startswith("shutdown"):
            break
        if line.strip() not in ("done", ""):
            warn(f"exabgp: {line.strip()}")
    stop.set()

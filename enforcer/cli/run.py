"""``enforcer run``: the agent."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import click

from enforcer.cli.driver import enforcer_of
from enforcer.cli.options import (
    confirm_within_option,
    cut_established_option,
    datastore_options,
    files_option,
    mode_option,
    netdev_ingress_option,
    node_option,
    pin_root_option,
    raw_backend_option,
    require_enforce,
    toolchain_option,
    tracked_option,
)
from enforcer.cli.support import INSTEAD, NonEmptyPath, require_nonempty, require_privilege
from enforcer.model.choices import ModeChoice


@click.command()
@files_option(
    help_text="A directory or file of resources to watch (--datastore files). May be repeated.",
    must_exist=False,
    required=False,
)
@datastore_options
@click.option(
    "--state-dir",
    type=NonEmptyPath(file_okay=False, path_type=Path),
    help="Where to store the last good policy for a restart. Default: $STATE_DIRECTORY, else /var/lib/enforcer.",
)
@click.option(
    "--metrics-addr",
    metavar="HOST:PORT",
    envvar="ENFORCER_METRICS_ADDR",
    callback=require_nonempty,
    help="Serve Prometheus metrics there (:9091: all addresses; off: none). Default: as the FelixConfiguration says.",
)
@click.option(
    "--health-addr",
    metavar="HOST:PORT",
    envvar="ENFORCER_HEALTH_ADDR",
    callback=require_nonempty,
    help="Serve /liveness and /readiness there. Default: what the FelixConfiguration says.",
)
@click.option(
    "--metrics-textfile",
    type=NonEmptyPath(dir_okay=False, path_type=Path),
    envvar="ENFORCER_METRICS_TEXTFILE",
    help="Also write the metrics to this file (.prom) for node_exporter, every 15 seconds.",
)
@click.option("--metrics-entries", is_flag=True, help="Also export the packet count of each entry: many series.")
@click.option("--detach-on-exit", is_flag=True, help="Remove the policy from the kernel on exit.")
@mode_option
@raw_backend_option
@netdev_ingress_option
@tracked_option
@cut_established_option
@confirm_within_option
@toolchain_option
@node_option
@pin_root_option
@click.option("-v", "--verbose", is_flag=True, help="Log every change, and show details of errors.")
def run(
    files: tuple[Path, ...],
    datastore: str,
    datastore_config: Path | None,
    emergency_dir: Path | None,
    state_dir: Path | None,
    metrics_addr: str | None,
    health_addr: str | None,
    metrics_textfile: Path | None,
    metrics_entries: bool,
    detach_on_exit: bool,
    mode: str,
    raw_backend: str,
    netdev_ingress: bool,
    tracked: str,
    cut_established: bool,
    confirm_within: float | None,
    toolchain: str,
    node: str,
    pin_root: Path | None,
    verbose: bool,
) -> None:
    """Run the agent: watch the datastore, apply changes, resync. Logs to stderr.

    A faulty object never replaces a good one, not even across a restart. What another program removes is restored
    within seconds, and logged. SIGHUP reads everything again. SIGTERM stops the agent and leaves the policy in the
    kernel, so that a restart leaves no gap. A second agent in the same network namespace is refused (exit code 3).

    \b
    Example:
      enforcer run -f /etc/enforcer --node jasper
      enforcer run -f /etc/enforcer --tracked enforce
      enforcer run -f /etc/enforcer --metrics-addr :9091 --health-addr localhost:9099
      ETCD_ENDPOINTS=https://10.0.0.5:2379 enforcer run --datastore etcd
      KUBECONFIG=/etc/enforcer/kubeconfig enforcer run --datastore kubernetes
    """
    from enforcer.agent.agent import Agent
    from enforcer.agent.expiry import Expiry
    from enforcer.agent.lock import AgentRecord, agent_lock
    from enforcer.agent.state import AgentState
    from enforcer.datastore.lastgood import state_directory
    from enforcer.datastore.open import Place, open_store
    from enforcer.monitor.exposition import require_prometheus
    from enforcer.monitor.monitor import Monitor
    from enforcer.monitor.settings import OFF, Given, parse_address
    from enforcer.monitor.textfile import check_textfile
    from enforcer.system import log
    from enforcer.system.directories import is_there
    from enforcer.system.memory import one_arena
    from enforcer.system.startup import settle

    one_arena()
    require_enforce(confirm_within, tracked)
    if state_dir is not None:
        is_there(state_dir)  # fail now rather than ignore an explicit option
    given = Given(metrics_addr and parse_address(metrics_addr), health_addr and parse_address(health_addr))
    if metrics_textfile is not None:
        check_textfile(metrics_textfile)
    if metrics_textfile is not None or given.metrics not in (None, OFF):
        require_prometheus()  # asked for on the command line: fail now; asked for by a FelixConfiguration: log, go on
    state_dir = state_dir or state_directory()
    store = open_store(Place(datastore, files, datastore_config, emergency_dir), state=state_dir, node=node)
    require_privilege("enforcing policy", xdp=mode != ModeChoice.RAW, instead=INSTEAD)
    log.setup(logging.DEBUG if verbose else logging.INFO)
    driver = enforcer_of(
        node,
        pin_root,
        mode,
        toolchain,
        raw_backend,
        netdev=netdev_ingress,
        tracked=tracked,
        cut_established=cut_established,
    )
    record = AgentRecord(os.getpid(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), node, store.describe())
    state = AgentState(node, store)
    monitor = Monitor(state, driver, given, textfile=metrics_textfile, entries=metrics_entries)
    with agent_lock(record), monitor:
        Agent(
            store,
            driver,
            detach_on_exit=detach_on_exit,
            confirm_within_s=confirm_within,
            state=state,
            expiry=Expiry(state_dir),
            on_start=settle,
        ).run()

"""What it costs an idle agent to watch for changes by others: ``.venv/bin/python -m bench.bench_guard`` (root).

A separate namespace has one interface and one deny list of CIDRS CIDRs. The benchmark measures the CPU time of the
process, user and system, over SECONDS seconds of one check each second, as the agent does; nothing else happens. Checks
too expensive for each second (the members of a large set) run less often, and are part of the average.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute, netns

from bench.bench_compile import nets
from enforcer.agent.guard import Guard
from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.netns import entered
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.policy.load import load
from enforcer.policy.resources import Resources

CIDRS, SECONDS = 100_000, 60
NODE = "jasper"

WAYS = {
    "iptables and ipset": (ModeChoice.RAW, RawChoice.IPTABLES),
    "nftables": (ModeChoice.RAW, RawChoice.NFTABLES),
    "XDP, iptables and ipset": (ModeChoice.NATIVE, RawChoice.IPTABLES),
}


def main() -> None:
    resources = _resources()
    for name, (mode, raw) in WAYS.items():
        with namespace():
            share, look_ms = measured(resources, mode, raw)
        print(f"watching {name}, {CIDRS:,} CIDRs: {100 * share:.3f} % of one CPU; a look {look_ms:.2f} ms")


def measured(resources: Resources, mode: ModeChoice, raw: RawChoice, seconds: int = SECONDS) -> tuple[float, float]:
    """The share of one CPU that an idle guard takes, and the CPU time of its median check in ms."""
    enforcer = Enforcer(NODE, choice=mode, raw=raw)
    looks: list[float] = []
    try:
        with Guard(enforcer.backends().drivers) as guard:
            for _ in range(2):  # the second changes nothing
                with guard.passing():
                    applied = enforcer.apply(resources)
                    guard.watch(applied.plan)
                    if not applied.changes:
                        guard.unchanged()
            guard.noticed()
            started = time.monotonic()
            for tick in range(1, seconds + 1):
                time.sleep(max(0.0, started + tick - time.monotonic()))
                before_s = time.process_time()
                for source in guard.sources():
                    source.ready()
                looks.append(time.process_time() - before_s)
            assert not guard.noticed(), "somebody meddles: nothing is measured"
            return sum(looks) / (time.monotonic() - started), 1000 * sorted(looks)[len(looks) // 2]
    finally:
        enforcer.detach()


def _resources() -> Resources:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        policy_file(Path(file.name))
        return load([Path(file.name)])


def policy_file(path: Path) -> None:
    """Write the policy: one interface, one deny list."""
    cidrs = nets(1, CIDRS)
    rows = zip(cidrs.net4.tolist(), cidrs.len4.tolist(), strict=True)
    listed = ", ".join(f"{'.'.join(map(str, net.to_bytes(4, 'big')))}/{length}" for net, length in rows)
    documents = (
        f"{{kind: HostEndpoint, metadata: {{name: e, labels: {{role: edge}}}}, spec: {{node: {NODE}, "
        "interfaceName: eth0}}",
        f"{{kind: GlobalNetworkSet, metadata: {{name: bots, labels: {{deny: all}}}}, spec: {{nets: [{listed}]}}}}",
        "{kind: GlobalNetworkPolicy, metadata: {name: dos}, spec: {selector: role == 'edge', doNotTrack: true, "
        "applyOnForward: true, types: [Ingress], ingress: [{action: Deny, source: {selector: \"deny == 'all'\"}}]}}",
    )
    path.write_text("\n---\n".join("{apiVersion: projectcalico.org/v3, " + text[1:] for text in documents))


@contextmanager
def namespace() -> Iterator[None]:
    """A network namespace with a veth pair (eth0, wire0) for the calling thread and its children; then removed."""
    name = f"bench-guard-{os.getpid()}"
    netns.create(name)
    try:
        with entered(Path("/run/netns") / name):
            with IPRoute() as ip:
                ip.link("add", ifname="eth0", kind="veth", peer={"ifname": "wire0"})
                for interface in ("eth0", "wire0"):
                    ip.link("set", index=ip.link_lookup(ifname=interface)[0], state="up")
            yield
    finally:
        netns.remove(name)


if __name__ == "__main__":
    main()

"""What a prediction in shards costs beside one in this process: ``.venv/bin/python -m bench.bench_cluster``.

A cluster of two worker processes on this machine, and the SYN flood of bench_predict. CPU time is that of the client
and of both workers; all figures are of one run, the best of several.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from distributed import Client, LocalCluster

from bench.flood import listed, policy_text, syn_flood, write
from dossim.cluster.dask import Cluster, cluster_at
from dossim.cluster.predict import Asked, predict_on
from dossim.drill.situation import Situation, situation_for
from dossim.drill.streamed import predict_stream
from dossim.drill.totals import Totals
from dossim.exhaustion.table import assumed_table
from dossim.packet.capture import read_capture
from dossim.packet.source import Reading
from dossim.packet.stream import Stream
from enforcer.policy.load import load

PACKETS, RUNS = 4_000_000, 3
SHARDS = (1, 2, 8)


def situations(folder: Path) -> dict[str, Situation]:
    """A deny list that drops half of the packets, so that the rest gets to conntrack; and one that drops all."""
    sources = listed()
    half, everything = folder / "half.yaml", folder / "all.yaml"
    half.write_text(policy_text(sources))
    everything.write_text(policy_text(sources).replace("  nets:", "  nets:\n  - 0.0.0.0/1"))
    write(syn_flood(PACKETS, sources), folder / "flood.pcap")
    capture = read_capture(folder / "flood.pcap")
    return {
        "half of the packets get to conntrack": situation_for(load([half]), capture=capture),
        "none does": situation_for(load([everything]), capture=capture),
    }


class Cpu:
    """CPU seconds of this process and the workers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def now(self) -> float:
        return time.process_time() + sum(self._client.run(time.process_time).values())


def best(
    run: Callable[[], Totals], cpu: Callable[[], float], expected: Totals | None = None
) -> tuple[float, float, Totals]:
    """CPU and elapsed seconds."""
    found = []
    for _ in range(RUNS):
        before, started = cpu(), time.perf_counter()
        totals = run()
        found.append((cpu() - before, time.perf_counter() - started))
        assert expected is None or totals.ends == expected.ends, "another result"
    return min(item[0] for item in found), min(item[1] for item in found), totals


def report(what: str, cpu_s: float, elapsed_s: float, one_s: float) -> None:
    ns = cpu_s / PACKETS * 1e9
    print(f"  {what:<28} {ns:6.0f} ns a packet   {cpu_s / one_s:5.2f} of one process   {elapsed_s:6.2f} s elapsed")


def measure(path: Path, situation: Situation, cluster: Cluster, cpu: Cpu) -> None:
    def alone() -> Totals:
        stream = Stream([path], Reading(any_file=True), is_hashed=False)
        return predict_stream(stream, situation, table=assumed_table()).totals

    one_s, elapsed_s, totals = best(alone, time.process_time)
    report("one process", one_s, elapsed_s, one_s)
    size = path.stat().st_size
    for shards in SHARDS:
        asked = Asked(size // shards, assumed_table())

        def sharded(asked: Asked = asked) -> Totals:
            return predict_on(cluster, [str(path)], situation, asked)[0].totals

        cpu_s, elapsed_s, _ = best(sharded, cpu.now, totals)
        report(f"two workers, {shards} shards", cpu_s, elapsed_s, one_s)


def main() -> None:
    started = time.perf_counter()
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0) as local:
        print(f"{PACKETS:,} SYNs, best of {RUNS} runs")
        print(f"a scheduler and two workers start: {time.perf_counter() - started:.1f} s")
        address = local.scheduler_address
        with tempfile.TemporaryDirectory() as folder, Client(address, set_as_default=False) as client:
            for name, situation in situations(Path(folder)).items():
                print(name)
                with cluster_at(address) as cluster:
                    measure(Path(folder) / "flood.pcap", situation, cluster, Cpu(client))
            tiny = Path(folder) / "tiny.pcap"
            write(syn_flood(10, listed()), tiny)
            started = time.perf_counter()
            with cluster_at(address) as cluster:
                predict_on(cluster, [str(tiny)], situation, Asked())
            print(f"ten packets on a running cluster: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()

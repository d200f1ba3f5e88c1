"""``./run bench``: every measurement of docs/performance.md, one after the other. Arguments are bench_xdp's."""

from __future__ import annotations

import sys

from bench import (
    bench_change,
    bench_cluster,
    bench_compile,
    bench_drill,
    bench_emergency,
    bench_fleet,
    bench_guard,
    bench_monitor,
    bench_predict,
    bench_predict_files,
    bench_startup,
    bench_stream,
    bench_suggest,
    bench_tables,
    bench_tracked,
    bench_xdp,
)


def main() -> None:
    bench_xdp.parsed(sys.argv[1:])  # reports wrong arguments before anything is measured
    bench_startup.main()
    bench_compile.main()
    bench_predict.main()
    bench_predict_files.main([])
    bench_cluster.main()
    bench_stream.main()
    bench_suggest.main()
    bench_tracked.main()
    bench_drill.main()
    bench_tables.main()
    bench_guard.main()
    bench_monitor.main()
    bench_change.main()
    bench_emergency.main([])
    bench_fleet.main(["--agents", "200", "--processes", "4", "--connect-over", "10"])
    bench_xdp.main(sys.argv[1:])


if __name__ == "__main__":
    main()

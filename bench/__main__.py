"""``./run bench``: every measurement of docs/performance.md, one after the other. Arguments are bench_xdp's."""

from __future__ import annotations

import sys

from bench import (
    bench_change,
    bench_compile,
    bench_drill,
    bench_guard,
    bench_monitor,
    bench_predict,
    bench_startup,
    bench_tables,
    bench_tracked,
    bench_xdp,
)


def main() -> None:
    bench_xdp.parsed(sys.argv[1:])  # reports wrong arguments before anything is measured
    bench_startup.main()
    bench_compile.main()
    bench_predict.main()
    bench_tracked.main()
    bench_drill.main()
    bench_tables.main()
    bench_guard.main()
    bench_monitor.main()
    bench_change.main()
    bench_xdp.main(sys.argv[1:])


if __name__ == "__main__":
    main()

"""``./run bench``: every measurement behind docs/performance.md, one after the other."""

from __future__ import annotations

from bench import bench_compile, bench_drill, bench_predict


def main() -> None:
    bench_compile.main()
    bench_predict.main()
    bench_drill.main()


if __name__ == "__main__":
    main()

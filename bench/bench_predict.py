"""How many packets a second one core reads and predicts: ``.venv/bin/python -m bench.bench_predict``.

The parts of a prediction, for the captures of :mod:`bench.flood`. The result is the CPU time of the best of several
runs, because the machine is shared; :mod:`bench.bench_predict_files` measures whole commands.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.flood import HOST, deny_list, kinds, lengthened, listed, syn_flood, write
from dossim.engine.sweep import Sweep
from dossim.packet.capture import Capture, read_capture
from dossim.predict import Prediction, predict
from dossim.predict.world import predictor_of
from enforcer.model.vocabulary import STAGE_OF_MODE, Mode, Stage
from enforcer.planning.plan import InterfacePlan

PACKETS, RUNS = 1_000_000, 5
_WINDOW = 60_000  # packets of a window of dossim.packet.stream
_LONG = 10  # packets of 1,500 bytes are so many times fewer


def best_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def report(what: str, packets: int, seconds: float) -> None:
    print(f"{what:<42} {packets / seconds / 1e6:6.2f} M packets/s   {seconds / packets * 1e9:5.0f} ns a packet")


def check(prediction: Prediction, mode: Mode | None) -> None:
    """Check the prediction: a benchmark of wrong answers is worth nothing."""
    totals = prediction.totals()
    early = str(STAGE_OF_MODE[mode]) if mode else str(Stage.RAW)
    assert set(totals) <= {early, "delivered"}, totals
    assert totals[early] >= len(prediction) // 2, totals


def sweep(capture: Capture, plan: InterfacePlan) -> None:
    found = Sweep(predictor_of(plan, HOST))
    for first in range(0, len(capture), _WINDOW):
        found.take(capture.part(first, first + _WINDOW))
    assert found.packets >= len(capture) // 2


def main() -> None:
    sources = listed()
    flood = syn_flood(PACKETS, sources)
    print(f"{PACKETS:,} SYNs of 54 bytes, {len(sources):,} deny-listed sources, best of {RUNS} runs")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flood.pcap"
        write(flood, path)
        report("read", PACKETS, best_s(lambda: read_capture(path)))
    captures = {"": flood, **kinds(flood), "1,500 bytes": lengthened(syn_flood(PACKETS // _LONG, sources))}
    for kind, capture in captures.items():
        for mode in (Mode.NATIVE, None):
            plan = deny_list(sources, mode)
            if mode is None or not kind:
                check(predict(capture, plan, HOST), mode)
                name = f"{mode or 'raw'}{': ' if kind else ''}{kind}"
                # For ruff: called at once
                report(f"predict, {name}", len(capture), best_s(lambda: predict(capture, plan, HOST)))  # noqa: B023
                if kind != "two fragments each":
                    # For ruff: called at once
                    report(f"swept, {name}", len(capture), best_s(lambda: sweep(capture, plan)))  # noqa: B023


if __name__ == "__main__":
    main()

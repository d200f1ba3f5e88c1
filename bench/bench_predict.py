"""How many packets a second one core reads and predicts: ``.venv/bin/python -m bench.bench_predict``.

The benchmark creates the capture: a SYN flood with correct checksums, half of it from 37,000 deny-listed sources, the
other half from random sources. The result is the CPU time of the best of several runs, because the machine is shared.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dossim.model.host import Host, Listener
from dossim.packet.capture import PADDING, Capture, read_capture
from dossim.packet.columns import parse_columns
from dossim.predict import Prediction, predict
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import STAGE_OF_MODE, Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.resources import DEFAULT_FAILSAFE_INBOUND, DEFAULT_FAILSAFE_OUTBOUND
from enforcer.policy.ruletable import IpSet, RuleTable
from tests.support.entries import SideMatch, entry_of

PACKETS, SOURCES, RUNS = 1_000_000, 37_000, 3
VICTIM = "10.10.10.10"
HOST = Host("jasper", addresses=(ip_interface(f"{VICTIM}/32"),), listen=(Listener(6, 80),))

Bytes = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

_ETHERNET = bytes.fromhex("060000000001 020000000000 0800")
_IPV4 = bytes.fromhex("45000028 00000000 40060000 00000000 0a0a0a0a")
_TCP = bytes.fromhex("04000050 00000001 00000000 50022000 00000000")
_FRAME = _ETHERNET + _IPV4 + _TCP
_PSEUDO = 6 + len(_TCP)  # protocol and length; the addresses are summed with the header


def syn_flood(packets: int, sources: U32) -> Capture:
    """One SYN from each of the sources in turn, every second one from a random source."""
    rng = np.random.default_rng(1)
    chosen = sources[rng.integers(len(sources), size=packets)]
    chosen[1::2] = rng.integers(1 << 24, 127 << 24, size=packets // 2, dtype=np.uint32)
    frames = np.tile(np.frombuffer(_FRAME, np.uint8), (packets, 1))
    frames[:, 26:30] = chosen.astype(">u4").view(np.uint8).reshape(-1, 4)
    frames[:, 24:26] = _checksum(frames[:, 14:34], 0)
    frames[:, 50:52] = _checksum(frames[:, 26:54], _PSEUDO)
    size = len(_FRAME)
    return Capture(
        path="<generated>",
        sha256="",
        data=np.concatenate([frames.ravel(), np.zeros(PADDING, np.uint8)]),
        offset=np.arange(packets, dtype=np.int64) * size,
        length=np.full(packets, size, np.int32),
        wire_length=np.full(packets, size, np.int32),
        record=np.arange(packets, dtype=np.int64),
        timestamp_ns=np.arange(packets, dtype=np.int64) * 1000,
    )


def _checksum(rows: Bytes, initial: int) -> Bytes:
    total = rows.copy().view(">u2").sum(axis=1, dtype=np.int64) + initial
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    sealed: Bytes = (0xFFFF - total).astype(">u2").view(np.uint8).reshape(-1, 2)
    return sealed


def deny_list(sources: U32, mode: Mode | None) -> InterfacePlan:
    deny = entry_of("gnp/dos-mitigation ingress[0]", Action.DENY, source=SideMatch(ip_set="s:deny"))
    nets = Nets(sources, np.full(len(sources), 32, np.uint8))
    table = RuleTable(
        "eth0",
        "hep",
        (deny,),
        failsafe_inbound=DEFAULT_FAILSAFE_INBOUND,
        failsafe_outbound=DEFAULT_FAILSAFE_OUTBOUND,
        sets={"s:deny": IpSet("s:deny", "dos-deny-list == 'true'", nets)},
    )
    stage = STAGE_OF_MODE[mode] if mode else Stage.RAW
    return InterfacePlan(table, mode, Backend.IPTABLES, (PlannedEntry(deny, stage),), held=1 if mode else 0)


def best_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def report(what: str, packets: int, seconds: float) -> None:
    print(f"{what:<28} {packets / seconds / 1e6:6.2f} M packets/s   {seconds / packets * 1e9:5.0f} ns a packet")


def check(prediction: Prediction, mode: Mode | None) -> None:
    """Check the prediction: a benchmark of wrong answers is worth nothing."""
    totals = prediction.totals()
    early = str(STAGE_OF_MODE[mode]) if mode else str(Stage.RAW)
    assert set(totals) <= {early, "delivered"}, totals
    assert totals[early] >= len(prediction) // 2, totals


def main() -> None:
    sources = np.unique(np.random.default_rng(2).integers(1 << 24, 127 << 24, size=SOURCES, dtype=np.uint32))
    print(f"{PACKETS:,} SYNs of {len(_FRAME)} bytes, {len(sources):,} deny-listed sources, best of {RUNS} runs")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flood.pcap"
        syn_flood(PACKETS, sources).write(path)
        read_s = best_s(lambda: read_capture(path))
        capture = read_capture(path)
    report("read", PACKETS, read_s)
    report("columns", PACKETS, best_s(lambda: parse_columns(capture)))
    for mode in (Mode.NATIVE, None):
        plan = deny_list(sources, mode)
        check(predict(capture, plan, HOST), mode)
        predict_s = best_s(lambda plan=plan: predict(capture, plan, HOST))  # type: ignore[misc]
        name = mode or "raw"
        report(f"predict, {name}", PACKETS, predict_s)
        report(f"read and predict, {name}", PACKETS, read_s + predict_s)


if __name__ == "__main__":
    main()

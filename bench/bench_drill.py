"""How long a whole drill takes, phase by phase: a SYN flood with as many packets and sources as a real one. Needs root.

The modes take turns, so that a change of the machine's load affects all of them.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict

import numpy as np

from bench.flood import syn_flood
from dossim.drill.run import drill_capture
from dossim.drill.situation import situation_for
from enforcer.model.choices import ModeChoice
from enforcer.policy.load import load_text

PACKETS, RUNS = 37_841, 3
MODES = (ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.RAW)

POLICY = """
- apiVersion: projectcalico.org/v3
  kind: HostEndpoint
  metadata: {name: bench, labels: {bench: "true"}}
  spec: {node: bench, interfaceName: eth0, expectedIPs: ["10.10.10.10"]}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkSet
  metadata: {name: bench, labels: {deny: "true"}}
  spec: {nets: ["0.0.0.0/2", "203.0.113.0/24"]}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: bench}
  spec:
    selector: bench == 'true'
    doNotTrack: true
    applyOnForward: true
    types: [Ingress]
    ingress: [{action: Deny, source: {selector: deny == 'true'}}]
"""


def main() -> None:
    """Print the median seconds of each phase for each mode, and the packets a second of the replay."""
    if os.geteuid() != 0:
        print("drill: needs root, left out")
        return
    sources = np.random.default_rng(2).integers(1 << 24, 127 << 24, size=PACKETS, dtype=np.uint32)
    capture = syn_flood(PACKETS, sources)
    resources = load_text("kind: List\napiVersion: v1\nitems:" + POLICY.replace("\n", "\n  "))
    seconds: dict[ModeChoice, dict[str, list[float]]] = {mode: defaultdict(list) for mode in MODES}
    for _ in range(RUNS):
        for mode in MODES:
            result = drill_capture(capture, situation_for(resources, capture=capture, choice=mode))
            assert result.verification.agrees, "a drill that disagrees measures nothing"
            for phase, spent in result.timings_s.items():
                seconds[mode][phase].append(spent)
    for mode, phases in seconds.items():
        medians = {phase: statistics.median(spent) for phase, spent in phases.items()}
        shown = "  ".join(f"{phase} {spent:.3f}" for phase, spent in medians.items())
        rate = PACKETS / medians["replay"]
        whole = sum(medians.values())
        print(f"drill {mode}, {PACKETS:,} packets: {whole:.2f} s ({shown}); {rate:,.0f} packets/s replayed")


if __name__ == "__main__":
    main()

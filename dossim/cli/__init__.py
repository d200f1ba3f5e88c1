"""The ``dossim`` command: one module for each verb, imported on use."""

from __future__ import annotations

import click

import dossim
from dossim.cli.needs import SimulatorGroup
from enforcer.cli.support import verbose_option

VERBS = ("validate", "lint", "plan", "selector", "explain", "predict", "suggest", "drill", "run")


@click.group(
    cls=SimulatorGroup,
    modules=[f"dossim.cli.{verb}" for verb in VERBS],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(dossim.__version__, prog_name="dossim")
@verbose_option
def main() -> None:
    """Predict where a host drops each packet under Calico's untracked policy, and verify it on the running kernel.

    Exit codes: 0 success, 1 a mismatch or failed expectation, 2 bad usage or input, 3 this host lacks something, 4 a
    bug.

    \b
    Example:
      dossim validate policies/ scenarios/
      dossim lint policies/
      dossim explain -p policies/ 'IP(src="203.0.113.9")/TCP(dport=80)'
      dossim predict attack.pcap -p policies/
      dossim suggest attack.pcap --baseline before.pcap -o gns.yaml
      sudo dossim drill attack.pcap -p policies/ --html report.html
      sudo dossim run scenarios/
    """

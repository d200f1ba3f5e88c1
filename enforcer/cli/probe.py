"""``enforcer probe``: what interfaces support."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.cli.options import (
    node_option,
    pin_root_option,
)
from enforcer.cli.support import INSTEAD, emit, output_option, require_privilege, verbose_option


@click.command()
@click.argument("interfaces", nargs=-1, metavar="[IFACE]...")
@node_option
@pin_root_option
@output_option
@verbose_option
def probe(interfaces: tuple[str, ...], node: str, pin_root: Path | None, output: str) -> None:
    """Probe what interfaces support: yes, no or cannot tell, and why. Without arguments, probe all interfaces.

    Briefly attaches an XDP program that passes every packet to each interface without one.

    \b
    Example:
      enforcer probe eth0 eth1 -o json
    """
    from enforcer.cli.facts_view import facts_as_dict, print_facts
    from enforcer.enforcement.probing import probe_named

    require_privilege("probing interfaces", xdp=True, instead=INSTEAD)
    facts = probe_named(node, interfaces, pin_root)
    emit(facts_as_dict(facts), output, lambda console: print_facts(facts, console))

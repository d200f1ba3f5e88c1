"""One pass over the tables and sets of a namespace, in an order that leaves no gap.

Sets get stricter, then the rules change, then sets get more lenient: a packet that both the old and the new rendering
drop is dropped at every moment in between (``sets``, ``apply``).
"""

from __future__ import annotations

from enforcer.backends.iptables.apply import apply_chains
from enforcer.backends.iptables.ipset import IpSetsConn
from enforcer.backends.iptables.render import Rendering
from enforcer.backends.iptables.sets import SetSync
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.backends.iptables.table import LEGACY, Tables


def reconcile(
    rendering: Rendering,
    settings: IptablesSettings,
    conn: IpSetsConn,
    *,
    tables: Tables = LEGACY,
    dry_run: bool = False,
) -> list[str]:
    """Brings the kernel to the rendered state. Returns one sentence for each change."""
    sync = SetSync(conn, dry_run, settings.max_set_size)
    sync.prepare(rendering.sets)
    sync.changes += apply_chains(
        lambda table, _: rendering.chains.get(table, ()),
        sync.index(rendering.sets),
        insert_mode=settings.insert_mode,
        dry_run=dry_run,
        tables=tables,
    )
    sync.finish(keep=[spec.name for spec in rendering.sets])
    return sync.changes

"""The legacy tables of kernels that have them built in or, like Debian's, as modules (``./run kernels``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.backends.iptables.rules import TableId, TableName
from enforcer.backends.iptables.table import kernel_table
from enforcer.kernel.ip_tables import TABLE_NAMES
from tests.kernel.conftest import NetnsPair

pytestmark = pytest.mark.needs_root


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_loads_the_tables_by_itself(netns_pair: NetnsPair, version: int) -> None:
    with netns_pair.host():
        with kernel_table(TableId(version, TableName.RAW)) as table:
            assert table.chain_names() == ["PREROUTING", "OUTPUT"]
        assert "raw" in Path(TABLE_NAMES[version]).read_text().split()

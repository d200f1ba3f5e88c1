"""What one pass of the enforcer imports: nothing of the simulator, and nothing that only the agent needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import NODE, documents
from tests.support.imported import packages_imported

pytestmark = pytest.mark.needs_root


@pytest.mark.parametrize("raw", ["iptables", "nftables"])
def test_what_a_pass_imports(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path, raw: str) -> None:
    file = tmp_path / "dos.yaml"
    file.write_text(documents())
    host, pins = ["nsenter", f"--net=/run/netns/{netns_pair.host_name}"], ["--pin-root", str(pin_root)]
    words = ["apply", "-f", str(file), "--node", NODE, "--raw-backend", raw, *pins]
    found = packages_imported("enforcer.cli.main", words, through=host)
    packages_imported("enforcer.cli.main", ["detach", *pins], through=host)
    assert found <= {"click", "yaml", "numpy", "re2", "rich"}

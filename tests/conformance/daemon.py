"""The enforcer as a daemon on a host."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.topology import Document, Host


@contextmanager
def daemon(host: Host, documents: Sequence[Document], folder: Path) -> Iterator[None]:
    """Runs in the host's namespace until the block ends, and must then exit with 0."""
    (folder / "policy.json").write_text(json.dumps(list(documents)))
    words = ["-f", str(folder), "--node", host.name, "--pin-root", str(host.pin_root), "--mode", str(host.choice)]
    words += ["--state-dir", f"{folder}.state"]
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{host.namespace}", sys.executable, "-m", "enforcer.cli", "run", *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield
        process.terminate()
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.communicate()

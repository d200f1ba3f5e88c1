"""The enforcer as a daemon on a host."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.topology import Document, Host
from tests.support import commands


@contextmanager
def daemon(host: Host, documents: Sequence[Document], folder: Path) -> Iterator[None]:
    """Runs in the host's namespace until the block ends, and must then exit with 0."""
    (folder / "policy.json").write_text(json.dumps(list(documents)))
    words = ["-f", str(folder), "--node", host.name, "--pin-root", str(host.pin_root), "--mode", str(host.choice)]
    words += ["--state-dir", f"{folder}.state"]
    with tempfile.TemporaryFile("w+") as said:
        process = commands.start(["run", *words], namespace=Path("/run/netns") / host.namespace, stderr=said)
        try:
            yield
            process.terminate()
            code = process.wait(timeout=20)
            said.seek(0)
            assert code == 0, said.read()
        finally:
            process.kill()
            process.wait()

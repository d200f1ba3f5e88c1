"""The last state of the files in which nothing was wrong, on disk, for an agent that starts when something is.

An agent remembers the last good version of every object as long as it runs. Without this, one that is restarted while a
deny list is faulty would take the list out of the kernel.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from enforcer import directories
from enforcer.errors import HostError
from enforcer.policy.collect import Collector
from enforcer.policy.resources import Resources

DEFAULT_DIRECTORY = Path("/var/lib/enforcer")
_VERSION = 1


def state_directory() -> Path:
    """Where services keep their state: what systemd says (``StateDirectory=``), else :data:`DEFAULT_DIRECTORY`."""
    return Path(os.environ.get("STATE_DIRECTORY") or DEFAULT_DIRECTORY)


class LastGood:
    """The texts of some files, under a name of their own for each choice of paths."""

    def __init__(self, directory: Path, paths: Sequence[Path]) -> None:
        identity = "\n".join(str(path.absolute()) for path in paths)
        self._file = directory / f"last-good-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"

    def save(self, files: Sequence[str], *, unchanged: Callable[[], bool]) -> bool:
        """Keep these files as they are, unless they are not any more what was found to be good; whether they are kept.

        Raises OSError or UnicodeDecodeError when they cannot be read or kept, HostError when others can write where
        they would be; then the older state stays.
        """
        texts = [{"path": path, "text": Path(path).read_bytes().decode("utf-8-sig")} for path in files]
        if not unchanged():
            return False
        directories.make(self._file.parent)
        with NamedTemporaryFile("w", encoding="utf-8", dir=self._file.parent, prefix=".", delete=False) as new:
            json.dump({"version": _VERSION, "files": texts}, new)
            new.flush()
            os.fsync(new.fileno())
        os.replace(new.name, self._file)
        return True

    def read(self) -> Resources:
        """The objects of the state kept, each as if it were read from its file; none when there is no such state.

        What others can write is no state of ours.
        """
        try:
            directories.is_there(self._file.parent)
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            texts = [(item["path"], item["text"]) for item in kept["files"] if kept["version"] == _VERSION]
        except (OSError, HostError, ValueError, KeyError, TypeError):
            return Resources()
        collector = Collector()
        for path, text in texts:
            collector.read_text(text, path)
        sound = [item for source in collector.sources for item in source.documents if not item.findings]
        return collector.resources(item.resource for item in sound)

"""Certificates and keys, in files or as text."""

from __future__ import annotations

from dataclasses import dataclass, field

from enforcer.system import files
from enforcer.system.files import UnreadableError

_PEM_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Pem:
    """A certificate or a key: a file, read for each connection because certificates are renewed, or its text.

    ``called``: the setting, for messages.
    """

    called: str
    path: str = ""
    text: str = field(default="", repr=False)

    def read(self) -> bytes | None:
        """The content; None if not configured. Raises UnreadableError."""
        if not self.path:
            return self.text.encode() or None
        try:
            text = files.read_text(self.path, limit_bytes=_PEM_MAX_BYTES, instead="a PEM file is expected")
        except UnreadableError as error:
            raise UnreadableError(f"{self.called}: {self.path}: {error}") from error
        if "-----BEGIN " not in text:
            raise UnreadableError(f"{self.called}: {self.path}: expected PEM, found no line with BEGIN")
        return text.encode()

"""What a row of the tables says, and how it is written short."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.unit.enforcer.policy.documents import document


@dataclass(frozen=True)
class Row:
    """One rule: a spec Calico accepts, one it refuses, and ``line:column: field: sentence`` of the refusal.

    ``~64*a~`` stands for 64 times the letter.
    """

    kind: str
    what: str
    good: str
    bad: str
    refusal: str
    good_metadata: str = "{name: x}"
    bad_metadata: str = "{name: x}"

    def accepted(self, version: str) -> str:
        return document(self.kind, long(self.good), long(self.good_metadata), version)

    def refused(self, version: str) -> str:
        return document(self.kind, long(self.bad), long(self.bad_metadata), version)

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def long(text: str) -> str:
    return re.sub(r"~(\d+)\*(.*?)~", lambda found: int(found[1]) * found[2], text)

"""The format of a row of the tables, and its short forms."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.unit.enforcer.policy.documents import document


@dataclass(frozen=True)
class Row:
    """One rule of validation: a spec that Calico accepts, one that it refuses, and ``line:column: field: message`` of
    the refusal.

    ``~64*a~`` means 64 times the letter.
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

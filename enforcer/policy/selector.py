"""Calico's selector language: parse, evaluate, canonical text, UID.

Grammar and oddities follow ``libcalico-go/lib/selector`` (tokenizer and parser): word operators are recognised only
directly after a label, so that ``contains contains "contains"`` is a comparison; runs of ``!`` collapse by parity; a
newline is no white space. A missing label makes ``!=`` and ``not in`` true and every other comparison false.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from enforcer.policy.selector_parser import SelectorError as SelectorError
from enforcer.policy.selector_parser import parse_tree
from enforcer.policy.selector_tree import Node


@dataclass(frozen=True)
class Selector:
    """A parsed selector. Equal canonical text means equal selector; equivalence is not looked for."""

    tree: Node

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        """Whether labels match."""
        return self.tree.evaluate(labels)

    def with_prefix(self, prefix: str) -> Selector:
        """The same selector with the prefix before every label key."""
        return Selector(self.tree.with_prefix(prefix))

    @cached_property
    def canonical(self) -> str:
        """The one spelling Calico prints (``parser/ast.go``)."""
        return self.tree.text()

    @cached_property
    def uid(self) -> str:
        """``s:`` and the unpadded URL-safe base64 of SHA-224 over ``s:`` + canonical text (``hash/hash.go``)."""
        digest = hashlib.sha224(f"s:{self.canonical}".encode()).digest()
        return "s:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return self.canonical


@lru_cache(maxsize=4096)
def parse(text: str) -> Selector:
    """The selector of a text; blank means all(). Raises SelectorError with the column of the fault."""
    return Selector(parse_tree(text))


def normalise(text: str) -> str:
    """Canonical text with white space trimmed off the ends first, newlines too (``selector.go: Normalise``)."""
    return parse(text.strip()).canonical


def conjunction(positive: str, negative: str) -> str:
    """A rule's ``selector`` narrowed by its ``notSelector``, as one selector (``felix/calc/rule_scanner.go``)."""
    return f"({positive}) && (!({negative}))"

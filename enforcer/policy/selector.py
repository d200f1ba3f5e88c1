"""Calico's selector language: parse, evaluate, canonical text, UID.

Grammar and peculiarities follow ``libcalico-go/lib/selector`` (tokenizer and parser): word operators are recognised
only directly after a label, so ``contains contains "contains"`` is a comparison; an even number of ``!`` cancels out; a
newline is not white space. For a missing label ``!=`` and ``not in`` are true and every other comparison is false.
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
    """A parsed selector. Selectors are equal if their canonical texts are; logical equivalence is not detected."""

    tree: Node

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        """Whether labels match."""
        return self.tree.evaluate(labels)

    def with_prefix(self, prefix: str) -> Selector:
        """The same selector with the prefix before every label key."""
        return Selector(self.tree.with_prefix(prefix))

    @cached_property
    def canonical(self) -> str:
        """The canonical text, as Calico prints it (``parser/ast.go``)."""
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
    """The selector in a text; blank means all(). Raises SelectorError with the column of the fault."""
    return Selector(parse_tree(text))


def normalise(text: str) -> str:
    """The canonical text, after trimming white space and newlines (``selector.go: Normalise``)."""
    return parse(text.strip()).canonical


def conjunction(positive: str, negative: str) -> str:
    """A rule's ``selector`` narrowed by its ``notSelector``, as one selector (``felix/calc/rule_scanner.go``)."""
    return f"({positive}) && (!({negative}))"

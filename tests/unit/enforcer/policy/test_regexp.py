"""Which regular expressions Go and Python both know, and read alike."""

from __future__ import annotations

import re

import pytest

from enforcer.policy.regexp import Unportable, check

# expression, a name it matches, one it does not
PORTABLE = [
    ("^kube", "kube0", "xkube"),
    ("veth[0-9a-f]+$", "veth0a", "veth"),
    ("(?i)ETH", "eth0", "et"),
    ("^(?:a|b){2}$", "ab", "a"),
    ("^(?P<n>x)?y$", "y", "x"),
    (r"^\w+\.\d{1,4}$", "eth0.100", "eth0"),
    (r"^[^\s\]]\x30$", "a0", "]0"),
    ("^[]x]$", "]", "y"),
    ("^(?s:a.)$", "ab", "b"),
    (r"^a*?b\b", "aab", "abc"),
]


@pytest.mark.parametrize(("pattern", "name", "other"), PORTABLE, ids=[row[0] for row in PORTABLE])
def test_in_both(pattern: str, name: str, other: str) -> None:
    check(pattern)
    assert re.search(pattern, name)
    assert not re.search(pattern, other)


UNPORTABLE = [
    ("look ahead", "(?=a)"), ("look behind", "(?<!a)"), ("a group named Go's way", "(?<n>a)"), ("a comment", "(?#a)"),
    ("an atomic group", "(?>a)"), ("flags in the middle", "a(?i)b"), ("flags switched off", "(?-i:a)"),
    ("Go's ungreedy flag", "(?U)a"), ("a condition", "(a)(?(1)b)"), ("a name again", "(?P<n>a)(?P=n)"),
    ("a group again", r"(a)\1"), ("Go's end of text", r"a\z"), ("Python's end of text", r"a\Z"),
    ("a Unicode class", r"\pL"), ("quoting", r"\Qa\E"), ("an octal escape", r"\101"), ("long hex", r"\x{41}"),
    ("a Unicode escape", r"\u0041"), ("a POSIX class", "[[:digit:]]"), ("a backspace or an error", r"[\b]"),
    ("possessive", "a++"), ("twice", "a**"), ("no lower bound", "a{,3}"), ("a brace for itself", "a{"),
    ("too many", "a{1001}"), ("nothing to repeat", "*a"), ("open", "(a"), ("closed", "a)"), ("an open class", "[a"),
    ("a range backwards", "[b-a]"), ("a class within", "[[a]"), ("a backslash at the end", "a\\"),
    ("a flag unknown", "(?x)a"),
]  # fmt: skip


@pytest.mark.parametrize("pattern", [row[1] for row in UNPORTABLE], ids=[row[0] for row in UNPORTABLE])
def test_not_in_both_or_not_alike(pattern: str) -> None:
    with pytest.raises(Unportable):
        check(pattern)

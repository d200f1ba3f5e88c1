"""Regular expressions are RE2's, with its limits."""

from __future__ import annotations

import pytest

from enforcer.policy.regexp import NoExpression, check, found_in

# expression, a name it matches, one it does not
EXPRESSIONS = [
    ("^kube", "kube0", "xkube"),
    ("veth[0-9a-f]+$", "veth0a", "veth"),
    ("(?i)ETH", "eth0", "et"),
    ("^(?:a|b){2}$", "ab", "a"),
    ("^(?P<n>x)?y$", "y", "x"),
    ("^(?<n>x)y$", "xy", "y"),
    (r"^\w+\.\d{1,4}$", "eth0.100", "eth0"),
    ("^[]x]$", "]", "y"),
    (r"^a*?b\b", "aab", "abc"),
    ("^[[:alpha:]]+$", "eth", "eth0"),
    (r"^\pL\d\z", "e0", "00"),
    (r"\Qa.b\E", "a.b", "axb"),
    (r"\Qa\C\E", r"a\C", "ab"),
    (r"\\C", r"\C", "C"),
    ("a{1000}", "a" * 1000, "a" * 999),
]


@pytest.mark.parametrize(("pattern", "name", "other"), EXPRESSIONS, ids=[row[0] for row in EXPRESSIONS])
def test_an_expression(pattern: str, name: str, other: str) -> None:
    check(pattern)
    assert found_in(pattern, name)
    assert not found_in(pattern, other)


NONE = [
    ("look ahead", "(?=a)"), ("look behind", "(?<!a)"), ("a comment", "(?#a)"), ("an atomic group", "(?>a)"),
    ("a condition", "(a)(?(1)b)"), ("a name again", "(?P<n>a)(?P=n)"), ("a group again", r"(a)\1"),
    ("possessive", "a++"), ("twice", "a**"), ("too many", "a{1001}"), ("nothing to repeat", "*a"), ("open", "(a"),
    ("closed", "a)"), ("an open class", "[a"), ("a range backwards", "[b-a]"), ("a backslash at the end", "a\\"),
    ("a flag unknown", "(?x)a"), ("a byte, which Go has not", r"a\C"), ("half a character", "\ud800"),
    ("a product of repetitions", "(((a?){1000}){1000}){1000}$"), ("two factors of 1,001 states", "((a{101}){10})"),
    ("large", "(a{999}){1}" * 20_000),
]  # fmt: skip


@pytest.mark.parametrize("pattern", [row[1] for row in NONE], ids=[row[0] for row in NONE])
def test_no_expression(pattern: str) -> None:
    with pytest.raises(NoExpression):
        check(pattern)


def test_the_time_is_linear_where_backtracking_takes_for_ever() -> None:
    assert not found_in("^(a+)+$", "a" * 60 + "b")
    assert not found_in("^(a|a?)+$", "a" * 60 + "b")


def test_a_byte_of_an_interfaces_name_that_is_no_character_is_the_replacement_character() -> None:
    name = b"eth\xff".decode("utf-8", "surrogateescape")
    assert found_in("^eth.$", name)
    assert not found_in("^eth[a-z]$", name)

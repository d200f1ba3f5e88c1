"""Unquoted scalars resolve as in Calico's YAML library, not as in Python's."""

from __future__ import annotations

import pytest

from enforcer.policy.nodes import Fieldset, Items, Scalar, from_data, from_text, resolve

SCALARS: list[tuple[str, object]] = [
    ("", None), ("~", None), ("null", None), ("Null", None), ("nULL", "nULL"),
    ("true", True), ("yes", True), ("On", True), ("y", True), ("off", False), ("N", False), ("tRUE", "tRUE"),
    ("0", 0), ("-1", -1), ("+5", 5), ("1_000", 1000), ("0x1F", 31), ("0b11", 3), ("0o17", 15), ("017", 15), ("089",
     89.0),
    ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), (".inf", float("inf")), ("-.INF", float("-inf")),
    ("1:30", "1:30"), ("10.0.0.0/8", "10.0.0.0/8"), ("1.2.3", "1.2.3"), ("2024-01-01", "2024-01-01"),
    ("-", "-"), (".", "."), ("1__", 1), ("--1", "--1"), ("9" * 5000, "9" * 5000),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text[:12] or "empty" for text, _ in SCALARS])
def test_unquoted_scalar(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_quotes_and_str_tags_make_strings() -> None:
    (root,) = from_text("['1', \"true\", !!str 2, ! 3, !!int '4']")
    assert isinstance(root, Items)
    assert [item.value for item in root.items if isinstance(item, Scalar)] == ["1", "true", "2", "3", 4]


def test_places_count_from_one() -> None:
    (root,) = from_text("é: {b: 'x'}\n")
    assert isinstance(root, Fieldset)
    inner = root.fields["é"]
    assert isinstance(inner, Fieldset)
    assert (inner.line, inner.column, inner.fields["b"].column, inner.keys["b"].column) == (1, 4, 8, 5)


def test_keys_become_strings_as_in_json() -> None:
    (root,) = from_text("{1: a, true: b, ~: c}")
    assert isinstance(root, Fieldset)
    assert list(root.fields) == ["1", "true", "null"]


def test_merge_keeps_what_the_mapping_has_itself() -> None:
    (root,) = from_text("[&a {x: 1, y-: 2}, &b {z: 3, x: 4}, {<<: [*a, *b], y-: 5}]")
    assert isinstance(root, Items)
    merged = root.items[2]
    assert isinstance(merged, Fieldset)
    assert {name: getattr(node, "value", None) for name, node in merged.fields.items()} == {"x": 1, "y-": 5, "z": 3}


def test_data_and_text_give_the_same_values() -> None:
    data = {"a": [1, "x", None, True, {"b": 1.5}]}
    (root,) = from_text('{"a": [1, "x", null, true, {"b": 1.5}]}')
    assert str(from_data(data)) == str(root) == "a mapping"
    inner, other = from_data(data), root
    assert isinstance(inner, Fieldset)
    assert isinstance(other, Fieldset)
    # For mypy: not None here
    assert [str(item) for item in inner.fields["a"].items] == [str(item) for item in other.fields["a"].items]  # type: ignore[union-attr]

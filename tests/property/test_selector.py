"""Properties of the selector language, over generated selectors and labels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy.selector import SelectorError, parse

KEYS = st.sampled_from(["a", "b", "in", "not", "has", "contains", "a/b.c-d"])
VALUES = st.sampled_from(["", "x", "y", "xy", "it's", "in", "&&"])
LABELS = st.dictionaries(KEYS, VALUES, max_size=4)
OPERATORS = st.sampled_from(["==", "!=", "contains", "starts with", "startswith", "ends with", "endswith"])
SETS = st.builds(", ".join, st.lists(VALUES.map(lambda value: f'"{value}"'), max_size=3))

PRIMARIES = st.one_of(
    st.just("all()"),
    st.builds("has({})".format, KEYS),
    st.builds('{} {} "{}"'.format, KEYS, OPERATORS, VALUES),
    st.builds("{} {} {{{}}}".format, KEYS, st.sampled_from(["in", "not in", "notin"]), SETS),
)
SELECTORS = st.recursive(
    PRIMARIES,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!{}".format, inner),
        st.builds("({})".format, inner),
    ),
    max_leaves=8,
)


def fault_of(text: str) -> SelectorError | None:
    try:
        parse(text)
    except SelectorError as error:
        return error
    return None


@given(SELECTORS, LABELS)
def test_canonical_text_means_the_same(text: str, labels: dict[str, str]) -> None:
    assert parse(parse(text).canonical).evaluate(labels) is parse(text).evaluate(labels)


@given(SELECTORS)
def test_canonical_text_of_canonical_text_settles(text: str) -> None:
    # Not after one round: a negated group in a negation prints as "!!", which parses as no negation (as in Calico).
    once = parse(parse(text).canonical).canonical
    assert parse(once).canonical == once
    assert parse(once).uid == parse(parse(once).canonical).uid


@given(SELECTORS, SELECTORS, LABELS)
def test_de_morgan(one: str, other: str, labels: dict[str, str]) -> None:
    assert parse(f"!(({one}) && ({other}))").evaluate(labels) is parse(f"!({one}) || !({other})").evaluate(labels)
    assert parse(f"!(({one}) || ({other}))").evaluate(labels) is parse(f"!({one}) && !({other})").evaluate(labels)


@given(SELECTORS, LABELS)
def test_negation_is_the_other_answer(text: str, labels: dict[str, str]) -> None:
    assert parse(f"!({text})").evaluate(labels) is not parse(text).evaluate(labels)


@given(SELECTORS, LABELS)
def test_labels_that_are_not_named_do_not_bear(text: str, labels: dict[str, str]) -> None:
    assert parse(text).evaluate(labels | {"elsewhere": "x"}) is parse(text).evaluate(labels)


@given(SELECTORS, LABELS)
def test_prefix_on_both_sides_changes_nothing(text: str, labels: dict[str, str]) -> None:
    prefixed = {f"pcns.{key}": value for key, value in labels.items()}
    assert parse(text).with_prefix("pcns.").evaluate(prefixed) is parse(text).evaluate(labels)


@given(st.text(alphabet="abin(){}!&|=\"' \n,.has", max_size=40))
def test_any_text_is_a_selector_or_an_error_with_a_column_within_it(text: str) -> None:
    fault = fault_of(text)
    if fault is None:
        assert parse(text).evaluate({}) in (True, False)
    else:
        assert 1 <= fault.column <= len(text) + 1
        assert fault.caret().endswith("^")

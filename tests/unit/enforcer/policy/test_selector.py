"""The selector language: a row is (selector, labels that match, labels that do not), then what is refused and where."""

from __future__ import annotations

import pytest

from enforcer.policy.selector import Selector, SelectorError, conjunction, normalise, parse

Labels = dict[str, str]

MATCHES: list[tuple[str, str, list[Labels], list[Labels]]] = [
    ("equality, double quotes", 'a == "x"', [{"a": "x"}, {"a": "x", "b": "y"}], [{}, {"a": "y"}, {"b": "x"}]),
    ("equality, single quotes", "a == 'x'", [{"a": "x"}], [{"a": "X"}, {"A": "x"}]),
    ("equality with the empty value", 'a == ""', [{"a": ""}], [{}, {"a": "x"}]),
    ("no space is needed", 'a=="x"', [{"a": "x"}], [{}]),
    ("the other quote may stand inside", """a == "it's" """, [{"a": "it's"}], [{"a": "its"}]),
    ("a newline may stand inside a string", 'a == "x\ny"', [{"a": "x\ny"}], [{"a": "xy"}]),
    ("inequality is true for a missing label", 'a != "x"', [{}, {"a": "y"}], [{"a": "x"}]),
    ("in, both quotes", """a in {"x", 'y'}""", [{"a": "x"}, {"a": "y"}], [{}, {"a": "z"}]),
    ("in the empty set is never true", "a in {}", [], [{}, {"a": ""}, {"a": "x"}]),
    ("a trailing comma in a set", 'a in {"x",}', [{"a": "x"}], [{"a": ""}]),
    ("not in is true for a missing label", 'a not in {"x"}', [{}, {"a": "y"}], [{"a": "x"}]),
    ("not in the empty set is always true", "a not in {}", [{}, {"a": ""}, {"a": "x"}], []),
    ("notin is a spelling of not in", 'a notin{"x"}', [{}, {"a": "y"}], [{"a": "x"}]),
    ("contains", 'a contains "bc"', [{"a": "abcd"}, {"a": "bc"}], [{}, {"a": "b"}, {"b": "bc"}]),
    ("contains the empty string needs the label", 'a contains ""', [{"a": ""}, {"a": "x"}], [{}]),
    ("starts with", 'a starts with "ab"', [{"a": "ab"}, {"a": "abc"}], [{}, {"a": "cab"}]),
    ("startswith, and many blanks between the words", 'a starts \t with"ab"', [{"a": "abc"}], [{}, {"a": "b"}]),
    ("ends with", "a endswith 'ab'", [{"a": "ab"}, {"a": "cab"}], [{}, {"a": "abc"}]),
    ("has", "has(a)", [{"a": ""}, {"a": "x"}], [{}, {"b": "x"}]),
    ("blanks inside has()", "has( a\t)", [{"a": "x"}], [{}]),
    ("all", "all()", [{}, {"a": "x"}], []),
    ("blanks inside and around all()", " all( ) ", [{}], []),
    ("global is true", "global()", [{}, {"a": "x"}], []),
    ("empty is all()", "", [{}, {"a": "x"}], []),
    ("blank is all()", " \t ", [{}, {"a": "x"}], []),
    ("not", "!has(a)", [{}], [{"a": ""}]),
    ("not binds looser than a comparison", '! a == "x"', [{}, {"a": "y"}], [{"a": "x"}]),
    ("two nots are none", "!! has(a)", [{"a": "x"}], [{}]),
    ("three nots are one, blanks between them", "! !! has(a)", [{}], [{"a": "x"}]),
    ("and", "has(a) && has(b)", [{"a": "", "b": ""}], [{}, {"a": ""}, {"b": ""}]),
    ("or", "has(a) || has(b)", [{"a": ""}, {"b": ""}], [{}]),
    ("and binds tighter than or", "has(a) || has(b) && has(c)", [{"a": ""}, {"b": "", "c": ""}], [{"b": ""}]),
    ("parentheses", "(has(a) || has(b)) && has(c)", [{"a": "", "c": ""}], [{"a": ""}]),
    ("not a group", "!(has(a) || has(b))", [{}], [{"a": ""}, {"b": ""}]),
    ("operator words are label names", 'contains contains "contains"', [{"contains": "contains!"}], [{}]),
    ("in, not, has, all are label names", "in in {'in'} && not == 'x' && has == 'y' && all == 'z'",
     [{"in": "in", "not": "x", "has": "y", "all": "z"}], [{}]),
    ("slashes, dots, dashes anywhere in a label", 'a/b/c.d-_ == "x" && -./ == "y"',
     [{"a/b/c.d-_": "x", "-./": "y"}], [{}]),
    ("a label of 512 characters", "has(" + "a" * 512 + ")", [{"a" * 512: ""}], [{"a" * 511: ""}]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "matching", "other"), [row[1:] for row in MATCHES], ids=[row[0] for row in MATCHES])
def test_selector_matches_exactly_these_labels(text: str, matching: list[Labels], other: list[Labels]) -> None:
    for selector in (parse(text), parse(parse(text).canonical)):
        assert [labels for labels in matching if not selector.evaluate(labels)] == []
        assert [labels for labels in other if selector.evaluate(labels)] == []


SIGNS = [(sign_a, operator, sign_b) for sign_a in ("", "!") for operator in ("&&", "||") for sign_b in ("", "!")]


@pytest.mark.parametrize(("sign_a", "operator", "sign_b"), SIGNS)
def test_all_sign_combinations(sign_a: str, operator: str, sign_b: str) -> None:
    selector = parse(f"{sign_a} a == 'a1' {operator} {sign_b} b == 'b1'")
    for a in (None, "a1", "a2"):
        for b in (None, "b1", "b2"):
            labels = {key: value for key, value in (("a", a), ("b", b)) if value is not None}
            left, right = (a == "a1") != bool(sign_a), (b == "b1") != bool(sign_b)
            assert selector.evaluate(labels) is ((left and right) if operator == "&&" else (left or right))


REFUSED: list[tuple[str, str, int, str]] = [
    ("a label compared with a label", "a == b", 6, "expected a string after '==', found label 'b'"),
    ("nothing after ==", "a ==", 5, "expected a string after '==', found end of input"),
    ("a label contains a label", "a contains b", 12, "expected a string after 'contains', found label 'b'"),
    ("the literal on the left", '"x" == a', 1, "expected a label, has(), all() or '(', found string 'x'"),
    ("a bare label", "a", 2, "expected an operator after the label"),
    ("a bare label and a blank", "a ", 3, "expected an operator after the label"),
    ("two labels", "a b", 3, "expected an operator after the label"),
    ("in with a label: the parser refuses", "a in b", 6, "expected '{' after 'in'"),
    ("not in with a label: no operator at all", "a not in b", 3, "expected an operator after the label"),
    ("ends withs", 'a ends withs "x"', 3, "expected an operator after the label"),
    ("inf is no in", 'a inf {"x"}', 3, "expected an operator after the label"),
    ("in with a string", 'a in "x"', 6, "expected '{' after 'in'"),
    ("an unclosed set", 'a in {"x"', 10, "expected ',' or '}', found end of input"),
    ("an unclosed string in a set", 'a in {"", ||', 11, "expected a string or '}'"),
    ("a lone not", "!", 2, "expected a label, has(), all() or '('"),
    ("a single =", 'a = "x"', 3, "equality is '=='"),
    ("a single &", "has(a) & has(b)", 8, "conjunction is '&&'"),
    ("a trailing |", "has(a) |", 8, "disjunction is '||'"),
    ("a dangling &&", "has(a) &&", 10, "found end of input"),
    ("an operator as operand", "foo != ||", 8, "expected a string after '!='"),
    ("an unterminated string", 'a == "x', 6, "no closing \""),
    ("mismatched quotes", "a == 'x\"", 6, "no closing '"),
    ("empty parentheses", "()", 2, "found ')'"),
    ("a parenthesis too few", "(has(a)", 8, "expected '&&', '||' or ')', found end of input"),
    ("a parenthesis too many", "has(a))", 7, "expected '&&', '||' or the end, found ')'"),
    ("a character of no token", "a % b", 3, "found '%'"),
    ("a newline between words", "a ==\n'x'", 5, "found a newline"),
    ("a trailing newline", "has(a)\n", 7, "found a newline"),
    ("has without label", "has()", 5, "expected a label inside has()"),
    ("has without its end", "has(foo", 8, "expected ')' to close has("),
    ("all without its end", "all(", 5, "expected ')' to close all("),
    ("global without its end", "global(", 8, "expected ')' to close global("),
    ("a blank before the parenthesis", "has (a)", 5, "expected an operator after the label"),
    ("upper case", "ALL()", 4, "expected an operator after the label"),
    ("a label of 513 characters", "has(" + "a" * 513 + ")", 5, "at most 512"),
    ("all() twice", "all() all()", 7, "expected '&&', '||' or the end"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_selector_is_refused_at_its_column(text: str, column: int, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert caught.value.column == column
    assert message in caught.value.message


def test_caret_stands_below_the_fault() -> None:
    with pytest.raises(SelectorError) as caught:
        parse("has(a) & has(b)")
    assert caught.value.caret() == "has(a) & has(b)\n       ^"


CANONICAL: list[tuple[str, str, str]] = [
    ("", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
    (" all() ", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
    (" (all() )", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
    ("! (has( b)||! has(a ))", "!(has(b) || !has(a))", "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"),
    ('! (a == "b"&&! c != "d")', '!(a == "b" && !c != "d")', "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"),
]


@pytest.mark.parametrize(("text", "canonical", "uid"), CANONICAL)
def test_canonical_text_and_uid_are_calicos(text: str, canonical: str, uid: str) -> None:
    assert parse(text).canonical == canonical == str(parse(text))
    assert parse(text).uid == uid


SPELLINGS = [
    ("strings print with double quotes", "a == 'x'", 'a == "x"'),
    ("unless they hold one", """a == '"'""", """a == '"'"""),
    ("set items are sorted and unique", "a in {'z','b','z'}", 'a in {"b", "z"}'),
    ("the words of an operator are parted", "a startswith 'x' && b notin {}", '(a starts with "x" && b not in {})'),
    ("nested groups stay nested", "(has(a) && has(b)) && has(c)", "((has(a) && has(b)) && has(c))"),
    ("a flat one stays flat", "has(a) && has(b) && has(c)", "(has(a) && has(b) && has(c))"),
    ("nots collapse", "!!!has(a)", "!has(a)"),
]


@pytest.mark.parametrize(("text", "canonical"), [row[1:] for row in SPELLINGS], ids=[row[0] for row in SPELLINGS])
def test_canonical_spelling(text: str, canonical: str) -> None:
    assert parse(text).canonical == canonical == parse(canonical).canonical


def test_equivalent_selectors_spelled_differently_have_different_uids() -> None:
    assert parse("has(a) && has(b)").uid != parse("has(b) && has(a)").uid


def test_normalise_trims_newlines_which_parse_refuses() -> None:
    assert normalise("\n a == 'x' \r\n") == 'a == "x"'
    with pytest.raises(SelectorError):
        parse("a == 'x'\n")


@pytest.mark.parametrize(
    ("text", "empty_matches"),
    [
        ("(" * 500 + "all()" + ")" * 500, True),
        ("!" * 1000 + "has(a)", False),
        ("!(" * 339 + "has(a)" + ")" * 339, True),
        ("all()&&(" * 113 + "all()" + ")" * 113, True),
    ],
    ids=["500 parentheses", "1000 nots", "339 negated groups", "113 nested conjunctions"],
)
def test_what_fits_the_api_does_not_exhaust_the_stack(text: str, empty_matches: bool) -> None:
    selector = parse(text)
    assert selector.evaluate({}) is empty_matches
    assert selector.uid.startswith("s:")


def test_what_nests_deeper_than_the_api_allows_is_refused() -> None:
    with pytest.raises(SelectorError, match="nested deeper than 400 levels"):
        parse("!(" * 2_000 + "has(a)" + ")" * 2_000)


def test_conjunction_folds_a_negated_selector_into_a_positive_one() -> None:
    selector = parse(conjunction("has(a)", "has(b) || has(c)"))
    assert selector.evaluate({"a": ""})
    assert not selector.evaluate({"a": "", "c": ""})
    assert selector.canonical == "(has(a) && !(has(b) || has(c)))"


def test_prefix_goes_before_every_label_and_into_no_value() -> None:
    text = "a == 'a' && b in {'b'} && (!has(c) || d contains 'd' || all())"
    expected = 'pcns.a == "a" && pcns.b in {"b"} && (!has(pcns.c) || pcns.d contains "d" || all())'
    assert parse(text).with_prefix("pcns.").canonical == f"({expected})"


def test_selectors_are_values() -> None:
    assert parse("has(a)") == parse(" has( a )")
    assert isinstance(parse("has(a)"), Selector)
    assert hash(parse("has(a)")) == hash(parse("has( a)"))

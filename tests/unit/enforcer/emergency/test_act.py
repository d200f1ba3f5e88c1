"""Acts as objects: names, labels, annotations; and what becomes of two on the same object."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.emergency.act import ACT, EXPIRES, HISTORY, LABEL, Act, Deed, acts_of, later, object_of, until_of
from enforcer.emergency.merge import adds, merged, shortened, without
from enforcer.policy.load import load_documents
from tests.support.examples import examples
from tests.unit.enforcer.emergency.world import NOW, act, deed, nets, read_again, stored


def test_the_same_cidrs_beside_the_same_list_have_one_name() -> None:
    one = act("192.0.2.1/32", "198.51.100.0/24")
    assert one.name.startswith("enforcer-deny-")
    assert len(one.name) == len("enforcer-deny-") + 12
    assert act("198.51.100.0/24", "192.0.2.1/32", "192.0.2.1/32", by="bob@x", hours=1).name == one.name
    assert act("192.0.2.1/32").name != one.name
    assert act("192.0.2.1/32", "198.51.100.0/24", beside="others").name != one.name


def test_an_act_has_the_labels_of_its_list_and_says_what_it_is() -> None:
    made = object_of(act("192.0.2.1/32"))
    assert made["metadata"]["labels"] == {"deny": "all", LABEL: "true"}
    noted = made["metadata"]["annotations"]
    assert noted[EXPIRES] == "2027-01-15T12:00:00Z"
    assert noted["enforcer.io/created"] == "2027-01-15T08:00:00Z"
    assert (noted["enforcer.io/by"], noted["enforcer.io/reason"]) == ("alice@adm", "flood")
    assert (noted["enforcer.io/beside"], noted[ACT]) == ("bots", made["metadata"]["name"].rpartition("-")[2])
    assert EXPIRES not in object_of(act("192.0.2.1/32", hours=None))["metadata"]["annotations"]


def test_more_cidrs_than_an_object_may_have_are_several_objects_of_one_act() -> None:
    many = [ip_network((0x0A000000 + number, 32)) for number in range(4001)]
    made = acts_of(many, beside="bots", labels={}, deed=deed())
    assert [len(each.nets) for each in made] == [2000, 2000, 1]
    assert [each.name for each in made] == [f"enforcer-deny-{made[0].id}-{number}" for number in (1, 2, 3)]
    assert {each.id for each in made} == {made[0].id}
    assert [net for each in made for net in each.nets] == many
    assert acts_of(list(reversed(many)), beside="bots", labels={}, deed=deed()) == made


def test_what_is_not_ours_stays_when_an_object_is_written_again() -> None:
    held = object_of(act("192.0.2.1/32"))
    held["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    held["metadata"]["annotations"]["argocd/x"] = "y"
    made = object_of(act("192.0.2.1/32", hours=None), held)
    assert (made["metadata"]["uid"], made["metadata"]["annotations"]["argocd/x"]) == ("u", "y")
    assert EXPIRES not in made["metadata"]["annotations"]


def test_an_end_that_is_no_time_is_none_and_is_noted() -> None:
    made = object_of(act("192.0.2.1/32"))
    made["metadata"]["annotations"][EXPIRES] = "tomorrow"
    loaded = load_documents([made])
    (item,) = loaded.global_network_sets
    assert until_of(item) is None
    (note,) = loaded.notes
    assert "found 'tomorrow'; the set stays until it is deleted" in note.message


def test_an_end_means_nothing_without_the_label() -> None:
    made = object_of(act("192.0.2.1/32"))
    del made["metadata"]["labels"][LABEL]
    (item,) = load_documents([made]).global_network_sets
    assert until_of(item) is None


def test_a_history_that_cannot_be_read_counts_as_absent() -> None:
    made = object_of(merged(act("192.0.2.1/32"), act("192.0.2.1/32", at_s=NOW + 60)))
    assert json.loads(made["metadata"]["annotations"][HISTORY])
    for text in ("", "{", "[1]", "[[1, 2, 3, 4]]", '[["x", "y", "z", "w"]]'):
        made["metadata"]["annotations"][HISTORY] = text
        (item,) = load_documents([made]).global_network_sets
        assert [each.by for each in read_again_of(item).deeds] == ["alice@adm"]


def read_again_of(item: object) -> Act:
    from enforcer.emergency.act import act_of

    return act_of(item)  # type: ignore[arg-type]  # checked when it runs


def test_only_a_shortening_ends_earlier() -> None:
    held, wanted = act("192.0.2.1/32", hours=4), act("192.0.2.1/32", hours=1, at_s=NOW + 60)
    assert merged(held, wanted).until_s == held.until_s
    assert shortened(held, wanted).until_s == wanted.until_s
    assert not adds(held, wanted)
    assert adds(wanted, held)
    assert adds(held, act("192.0.2.1/32", hours=None))
    assert not adds(act("192.0.2.1/32", hours=None), held)


def test_cidrs_are_taken_out_and_put_in() -> None:
    held = act("192.0.2.1/32", "198.51.100.0/24")
    assert without(held, nets("192.0.2.1/32")).nets == nets("198.51.100.0/24")
    split = without(held, nets("198.51.100.0/24"), nets("198.51.100.128/25"))
    assert split.nets == nets("192.0.2.1/32", "198.51.100.128/25")
    assert split.name == held.name


CIDRS = st.sampled_from(["192.0.2.1/32", "198.51.100.0/24", "2001:db8::/48", "203.0.113.0/25"])
DEEDS = st.builds(
    Deed,
    st.integers(NOW, NOW + 5),
    st.sampled_from(["alice@a", "bob@b"]),
    st.sampled_from(["", "flood", 'a "quoted" reason; with\nmore']),
    st.one_of(st.none(), st.integers(NOW, NOW + 5)),
)


@st.composite
def acts(draw: st.DrawFn) -> Act:
    """Versions of one object."""
    who = draw(DEEDS)
    (made,) = acts_of(
        nets(*draw(st.sets(CIDRS, min_size=1))),
        beside="bots",
        labels=draw(st.sampled_from([{"deny": "all"}, {"deny": "some"}])),
        deed=who,
    )
    return replace(made, name="enforcer-deny-1", id="1")


@given(acts(), acts(), acts())
@settings(max_examples=examples(200, nightly=100_000))
def test_merging_loses_nothing_in_any_order(one: Act, two: Act, three: Act) -> None:
    both = merged(one, two)
    assert both == merged(two, one)
    assert merged(both, one) == both, "once more changes nothing"
    assert merged(both, three) == merged(one, merged(two, three))
    assert later(both.until_s) == max(later(one.until_s), later(two.until_s))
    assert set(both.nets) == {*one.nets, *two.nets}
    assert {*both.deeds} == {*one.deeds, *two.deeds}
    assert both.created_s == min(one.created_s, two.created_s)
    assert not adds(both, one)
    assert not adds(both, two)


@given(acts(), acts())
@settings(max_examples=examples(200, nightly=100_000))
def test_an_act_is_read_as_it_was_written(one: Act, two: Act) -> None:
    for made in (one, merged(one, two)):
        assert read_again(made) == made
        (item,) = stored(made)
        assert until_of(item) == made.until_s


def test_an_object_remembers_the_first_and_the_newest_deeds() -> None:
    made = act("192.0.2.1/32")
    for number in range(1, 40):
        made = merged(made, act("192.0.2.1/32", at_s=NOW + number))
    assert [each.at_s - NOW for each in made.deeds] == [0, *range(21, 40)]
    assert read_again(made) == made

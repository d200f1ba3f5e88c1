"""What an allow changes, and where else a network is denied."""

from __future__ import annotations

from enforcer.emergency.allow import allow_plan, lifted
from tests.unit.enforcer.emergency.test_deny import ALLOW, GOOD
from tests.unit.enforcer.emergency.world import BOTS, DENY, ENDPOINT, act, nets, policy, resources, with_acts

BASE = resources()


def test_an_act_that_has_it_is_changed() -> None:
    one, other = act("192.0.2.1/32", "192.0.2.2/32"), act("192.0.2.9/32")
    found = allow_plan(with_acts(BASE, one, other), nets("192.0.2.1/32"), split=False)
    assert [each.name for each in found.changed] == [one.name]
    assert (found.wider, found.elsewhere) == ((), ())
    assert lifted(one, nets("192.0.2.1/32"), split=False).nets == nets("192.0.2.2/32")
    assert lifted(other, nets("192.0.2.1/32"), split=False) is other


def test_all_that_is_within_is_lifted() -> None:
    held = act("192.0.2.1/32", "192.0.2.64/26", "198.51.100.1/32")
    assert lifted(held, nets("192.0.2.0/24"), split=False).nets == nets("198.51.100.1/32")


def test_a_wider_network_is_split_only_when_asked() -> None:
    held = act("10.0.0.0/8")
    found = allow_plan(with_acts(BASE, held), nets("10.1.2.3/32"), split=False)
    assert found.changed == ()
    (wider,) = found.wider
    assert (wider.act, wider.network, len(wider.pieces)) == (held.name, nets("10.0.0.0/8")[0], 24)
    after = lifted(held, nets("10.1.2.3/32"), split=True)
    assert after.nets == wider.pieces
    assert sum(net.num_addresses for net in after.nets) == 2**24 - 1
    assert not any(nets("10.1.2.3/32")[0].overlaps(net) for net in after.nets)


def test_several_are_taken_out_of_one() -> None:
    held = act("192.0.2.0/24", "2001:db8::/64")
    wanted = nets("192.0.2.1/32", "192.0.2.128/25", "2001:db8::1/128")
    after = lifted(held, wanted, split=True)
    assert sum(net.num_addresses for net in after.nets if net.version == 4) == 127
    assert not any(net.version == other.version and net.overlaps(other) for net in after.nets for other in wanted)


def test_a_list_of_the_operator_is_named_with_its_place() -> None:
    found = allow_plan(BASE, nets("203.0.113.9/32"), split=True)
    assert found.changed == ()
    (where,) = found.elsewhere
    assert (where.holder, where.entry) == ("gns/bots", "gnp/dos ingress[0]")
    assert where.where.startswith("<inline>:")


def test_a_list_that_has_only_a_part_of_it_is_named_too() -> None:
    (where,) = allow_plan(BASE, nets("203.0.112.0/23"), split=False).elsewhere
    assert where.holder == "gns/bots"


def test_what_an_exception_lets_pass_is_not_denied_elsewhere() -> None:
    listed = BOTS.replace("203.0.113.0/24", "198.51.100.0/24")
    assert (
        allow_plan(
            resources(ENDPOINT, listed, GOOD, policy(ALLOW, DENY)), nets("198.51.100.7/32"), split=False
        ).elsewhere
        == ()
    )


def test_what_nobody_has() -> None:
    found = allow_plan(BASE, nets("8.8.8.8/32"), split=False)
    assert (found.changed, found.wider, found.elsewhere) == ((), (), ())

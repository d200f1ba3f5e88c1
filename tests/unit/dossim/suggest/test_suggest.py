"""Which list is suggested: for small captures whose best list can be seen, and for generated traffic."""

from __future__ import annotations

from ipaddress import ip_network

import numpy as np
import pytest

from bench.attackers import sources, tally_of
from dossim.suggest.forged import spread
from dossim.suggest.measure import Suggested, busiest, point
from dossim.suggest.signature import Signature, signatures
from dossim.suggest.solve import Problem, Solved
from dossim.suggest.suggest import Suggestion, Wanted, suggest
from dossim.suggest.tally import Ranges, tally
from dossim.suggest.traffic import I64, U64, Traffic, read_traffic
from enforcer.model.vocabulary import Side
from tests.unit.dossim.suggest.generated import TCP, UDP, Packet, capture

NOBODY = Ranges([])


def traffic(packets: list[Packet]) -> Traffic:
    return read_traffic(capture(packets), []).traffic


def suggested(
    attack: list[Packet],
    baseline: list[Packet] | None,
    *,
    budget: int = 10,
    limit: float = 0.0,
    protect: tuple[str, ...] = (),
    rules: bool = False,
) -> Suggestion:
    mine, usual = traffic(attack), None if baseline is None else traffic(baseline)
    telling = signatures(mine, usual) if rules and usual is not None else ()
    protected = Ranges([ip_network(text) for text in protect])
    other = None if usual is None else tally(usual, telling)
    return suggest(tally(mine, telling), other, Wanted(budget, limit, protected, telling))


def nets(found: Suggestion) -> list[str]:
    return sorted(str(net) for rule in found.suggested.rules for net in rule.nets)


def web(*sources: str) -> list[Packet]:
    return [(source, TCP, (50_000 + number, 80)) for number, source in enumerate(sources)]


NEIGHBOURS = web(*(f"203.0.113.{host}" for host in range(64, 128)))


def test_a_network_without_customers_is_denied_as_a_whole() -> None:
    found = suggested(NEIGHBOURS, web("198.51.100.1"))
    assert nets(found) == ["203.0.113.64/26"]
    assert (found.here.blocked, found.here.collateral) == (64, 0)


def test_a_customer_in_the_midst_of_it_is_spared() -> None:
    found = suggested(NEIGHBOURS, web("203.0.113.100", "198.51.100.1"), budget=20)
    assert not any(ip_network("203.0.113.100/32").subnet_of(ip_network(net)) for net in nets(found))
    assert (found.here.blocked, found.here.collateral) == (63, 0)


def test_a_customer_may_be_worth_less_than_the_limit() -> None:
    """One of 200 is half a percent."""
    customers = web("203.0.113.100", *(f"198.51.100.{host}" for host in range(199)))
    assert suggested(NEIGHBOURS, customers, budget=1, limit=0.005).here.blocked == 64
    assert suggested(NEIGHBOURS, customers, budget=1, limit=0.004).here.blocked == 32


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.1, 1.0])
def test_what_is_protected_is_in_no_network(limit: float) -> None:
    """Also if nobody there was seen."""
    found = suggested(NEIGHBOURS, web("198.51.100.1"), limit=limit, protect=("203.0.113.80/28",))
    assert found.here.blocked == 48
    assert not any(ip_network("203.0.113.80/28").overlaps(ip_network(net)) for net in nets(found))


def test_no_network_is_wider_than_an_emergency_deny_may_be() -> None:
    found = suggested(web("1.1.1.1", "2.2.2.2", "3.3.3.3"), web("198.51.100.1"), budget=1)
    assert nets(found) in (["1.1.1.1/32"], ["2.2.2.2/32"], ["3.3.3.3/32"])


def test_ipv6_sources_are_denied_by_networks_of_at_most_64_bits() -> None:
    attack = web(*(f"2001:db8:bad:{number:x}::{number:x}" for number in range(16)))
    found = suggested([*attack, *NEIGHBOURS], web("2001:db8:1::1", "198.51.100.1"), budget=2)
    assert nets(found) == ["2001:db8:bad::/60", "203.0.113.64/26"]


def test_among_lists_that_do_the_same_the_one_with_fewer_addresses_is_taken() -> None:
    attack = web("9.1.1.1", "9.200.1.1")
    assert nets(suggested(attack, web("198.51.100.1"), budget=1)) == ["9.0.0.0/8"]
    assert nets(suggested(attack, web("198.51.100.1"), budget=2)) == ["9.1.1.1/32", "9.200.1.1/32"]


REFLECTORS: list[Packet] = [(f"{host}.{host}.7.7", UDP, (123, 4000 + host)) for host in range(20, 60)]


def test_one_rule_for_a_port_is_better_than_a_list_of_all_its_sources() -> None:
    found = suggested(REFLECTORS, web("20.20.7.7", "198.51.100.1"), rules=True)
    (rule,) = found.suggested.rules
    assert (rule.signature, rule.anywhere, rule.nets) == (Signature(UDP, Side.SOURCE, 123), (4,), ())
    assert (found.here.size, found.here.blocked, found.here.collateral) == (1, 40, 0)


def test_rules_and_networks_share_the_budget() -> None:
    """Ten reflectors of a port that customers use as well, and a network without any of them."""
    customers = web(*(f"198.51.100.{host}" for host in range(50)))
    customers += [(f"198.51.100.{host}", UDP, (123, 9999)) for host in range(50)]
    found = suggested([*REFLECTORS, *NEIGHBOURS, *NEIGHBOURS], customers, budget=3, rules=True)
    assert found.here.size <= 3
    assert found.here.collateral == 0
    assert found.here.blocked >= 128


def test_a_rule_leaves_out_what_is_protected() -> None:
    found = suggested(REFLECTORS, web("198.51.100.1"), rules=True, protect=("20.20.0.0/16",))
    assert found.here.blocked == 39


def test_without_a_baseline_legitimate_traffic_comes_from_everywhere() -> None:
    """A /8 holds 1 in 256 addresses: more than a limit of 0.1 % allows, less than one of 1 %."""
    attack = web(*(f"9.{number}.1.1" for number in range(0, 256, 2)))
    narrow, wide = (suggested(attack, None, budget=1, limit=limit) for limit in (0.001, 0.01))
    assert wide.here.blocked == 128
    assert narrow.here.blocked == 32
    assert wide.held_out is None


def test_a_list_of_half_of_the_customers_is_tried_on_the_other_half() -> None:
    """Customers everywhere among the attackers: those not known are denied."""
    attack = web(*(f"9.{number}.1.1" for number in range(256)))
    found = suggested(attack, web(*(f"9.{number}.77.77" for number in range(0, 256, 8))), budget=32)
    assert found.held_out is not None
    assert found.held_out.known == 0
    assert found.held_out.unknown > 0.2


class TestForged:
    RANDOM = np.random.default_rng(1).integers(1 << 24, 224 << 24, 4000, dtype=np.uint64) << np.uint64(32)

    def test_random_sources_are_recognised(self) -> None:
        assert spread(tally_of(self.RANDOM)).is_forged

    def test_uneven_sources_are_real(self) -> None:
        assert not spread(tally_of(sources(4000, 1, 1))).is_forged

    def test_sources_that_come_back_can_be_listed(self) -> None:
        assert not spread(tally_of(np.tile(self.RANDOM, 3))).is_forged

    def test_sources_that_no_host_has_are_forged(self) -> None:
        some = np.concatenate(
            [sources(4000, 1, 1), (np.arange(200, dtype=np.uint64) | np.uint64(127 << 24)) << np.uint64(32)]
        )
        found = spread(tally_of(some))
        assert found.is_forged
        assert found.impossible == pytest.approx(200 / 4200)

    def test_no_list_is_suggested_but_the_curve_is_shown(self) -> None:
        found = suggest(tally_of(self.RANDOM), tally_of(sources(1000, 1, 1)), Wanted(50, 0.001, NOBODY))
        assert found.forged
        assert not found.helps
        assert [item.size for item in found.curve][:3] == [0, 1, 2]

    def test_a_rule_for_all_of_its_packets_helps(self) -> None:
        attack = traffic(
            [(f"{n % 223 + 1}.{n % 256}.{n // 256}.9", UDP, (999, 80)) for n in range(1500) if n % 223 != 126]
        )
        usual = traffic(web("198.51.100.1"))
        telling = signatures(attack, usual)
        found = suggest(tally(attack, telling), tally(usual, telling), Wanted(50, 0.001, NOBODY, telling))
        assert found.forged
        assert found.here.size == 1
        assert found.here.blocked == len(attack)


class TestSmall:
    """Sixteen neighbours, lists of up to four networks: every list can be tried."""

    HOSTS = 16
    NETS = tuple((at << 4 - length, at + 1 << 4 - length) for length in range(5) for at in range(1 << length))

    def best(self, attack: I64, baseline: I64, budget: int, limit: float) -> float:
        """The largest share of the attack that a list within the limit blocks, less what it denies of the baseline."""
        most = limit * baseline.sum() + 1e-9

        def rest(start: int, budget: int, denied: int) -> float:
            found = 0.0
            for first, after in self.NETS if budget else ():
                cost = int(baseline[first:after].sum())
                if first >= start and denied + cost <= most:
                    worth = attack[first:after].sum() / attack.sum() - cost / baseline.sum()
                    found = max(found, worth + rest(after, budget - 1, denied + cost))
            return found

        return rest(0, budget, 0)

    @pytest.mark.slow
    def test_the_limit_costs_little_beyond_what_it_must(self) -> None:
        """Lists that are the cheapest for no weight are not considered: most often the best one is among the others."""
        rng = np.random.default_rng(5)
        reached = []
        for _ in range(100):
            attack = rng.integers(1, 20, self.HOSTS)
            baseline = rng.integers(1, 6, self.HOSTS) * (rng.random(self.HOSTS) < 0.4)
            baseline[rng.integers(self.HOSTS)] += 1
            budget, limit = int(rng.integers(1, 5)), float(rng.choice([0.05, 0.1, 0.2, 0.4]))
            mine, usual = (tally_of(np.repeat(self.keys(), column)) for column in (attack, baseline))
            found = suggest(mine, usual, Wanted(budget, limit, NOBODY)).here
            assert found.share <= limit
            best = self.best(attack, baseline, budget, limit)
            reached.append((found.blocked / attack.sum() - found.share) / best)
        assert max(reached) <= 1 + 1e-9
        assert np.mean(np.array(reached) > 1 - 1e-9) >= 0.9
        assert np.mean(reached) >= 0.98

    def keys(self) -> U64:
        return (np.arange(self.HOSTS, dtype=np.uint64) | np.uint64(9 << 24)) << np.uint64(32)


class TestGenerated:
    """Traffic as uneven as real traffic, a third of the customers in the networks of the attack."""

    attack = tally_of(sources(6000, 1, 1))
    baseline = tally_of(np.concatenate([sources(1000, 1, 2), sources(2000, 2, 3)]))
    protected = Ranges([ip_network("10.0.0.0/8")])

    def cost(self, found: Suggested) -> float:
        its = point(found, self.attack, self.baseline)
        return 1 - its.blocked / self.attack.total + its.share

    @pytest.mark.parametrize("length", [8, 16, 24, 32])
    def test_no_list_of_the_busiest_networks_is_better_at_any_size(self, length: int) -> None:
        with Solved(Problem(self.attack, self.baseline, self.protected), 300, 1.0) as solved:
            for size in [*range(1, 40), *range(40, 301, 20)]:
                other = self.cost(busiest(self.attack, self.protected, length, size))
                assert self.cost(solved.suggested(size)) <= other + 1e-6

    @pytest.mark.parametrize("limit", [0.0, 0.0005, 0.003, 0.05])
    def test_every_list_of_the_curve_is_within_the_limit(self, limit: float) -> None:
        found = suggest(self.attack, self.baseline, Wanted(300, limit, self.protected))
        assert found.here.blocked
        assert all(item.share <= limit for item in found.curve)
        assert [item.blocked for item in found.curve] == sorted(item.blocked for item in found.curve)

    def test_a_higher_limit_blocks_no_less(self) -> None:
        limits = (0.0, 0.001, 0.01, 0.1)
        found = [suggest(self.attack, self.baseline, Wanted(100, limit, self.protected)) for limit in limits]
        assert [item.here.blocked for item in found] == sorted(item.here.blocked for item in found)

    def test_customers_that_are_denied_are_named(self) -> None:
        found = suggest(self.attack, self.baseline, Wanted(50, 0.01, self.protected))
        assert sum(item.collateral for item in found.costly) <= found.here.collateral
        worst = found.costly[0]
        assert worst.net is not None
        assert worst.collateral == sum(packets for _, packets in worst.customers) + worst.others
        # For mypy: checked when it runs
        assert all(net.subnet_of(worst.net) for net, _ in worst.customers)  # type: ignore[arg-type]

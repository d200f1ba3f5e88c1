"""The next pass repairs what was changed by hand in our tables and sets."""

from __future__ import annotations

import pytest

from enforcer.backends.iptables import IptablesSettings
from enforcer.backends.iptables.render import render
from enforcer.model.errors import HostError
from tests.kernel.iptables_plans import (
    BACKEND,
    RICH,
    plan,
)
from tests.kernel.iptables_support import (
    everything,
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    run,
    saved,
)

pytestmark = pytest.mark.needs_root

SET4, SET6 = (
    spec.name for spec in render(plan(RICH), IptablesSettings()).sets if len(spec.nets) == 3 and not spec.lenient
)

HAND_EDITS = {
    "a rule deleted": "iptables-legacy -t raw -D enf-pi-eth0/security 3",
    "a rule added": "iptables-legacy -t raw -I enf-pi-eth0/security 2 -s 10.9.9.9 -j ACCEPT",
    "a rule of an extension we never use": "iptables-legacy -t raw -I enf-fh-eth0 -m ttl --ttl-eq 3 -j ACCEPT",
    "rules out of order": "iptables-legacy -t raw -R enf-fh-eth0 1 -j enf-pi-eth0/security",
    "a chain emptied": "ip6tables-legacy -t raw -F enf-fh-eth0",
    "an unwanted chain of ours": "iptables-legacy -t raw -N enf-stray",
    "unhooked": "iptables-legacy -t raw -D PREROUTING -j enf-PREROUTING",
    "hooked twice": "iptables-legacy -t raw -A OUTPUT -j enf-OUTPUT",
    "hooked under a condition": "iptables-legacy -t raw -R PREROUTING 1 -p tcp -j enf-PREROUTING",
    "hooked elsewhere": "iptables-legacy -t raw -A OUTPUT -j enf-fh-eth0",
    "a member removed": f"ipset del {SET4} 203.0.113.0/24",
    "a member added": f"ipset add {SET6} 2001:db8::1",
    "a member excepted": f"ipset add {SET4} 203.0.113.9/32 nomatch",
    "all members removed": f"ipset flush {SET4}",
    "a stray set": "ipset create enf4-stray hash:ip",
    "everything gone": "iptables-legacy -t raw -F",
    "what accepts the mark, unhooked": "iptables-legacy -t filter -D INPUT -j enf-INPUT",
    "what accepts the mark, hooked twice": "iptables-legacy -t mangle -A PREROUTING -j enf-PREROUTING",
    "what accepts the mark, hooked elsewhere": "iptables-legacy -t filter -I OUTPUT -j enf-INPUT",
    "what accepts the mark, emptied": "iptables-legacy -t filter -F enf-INPUT",
    "what accepts the mark, all marks": "iptables-legacy -t filter -R enf-INPUT 1 -j ACCEPT",
    "what accepts the mark, another mark": "iptables-legacy -t mangle -R enf-PREROUTING 1 -m mark --mark 1 -j ACCEPT",
    "a chain of ours in a table that needs none": "ip6tables-legacy -t filter -N enf-INPUT",
}


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_change_by_hand_is_repaired(inside: str, edit: str) -> None:
    BACKEND.apply(plan(RICH))
    before = everything()
    run(*HAND_EDITS[edit].split())
    assert everything() != before
    assert BACKEND.apply(plan(RICH)).changes
    assert everything() == before
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_a_hook_that_is_no_longer_first_is_moved_back(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    run("iptables-legacy", "-t", "raw", "-I", "PREROUTING", "-j", "ACCEPT")
    assert BACKEND.apply(plan(RICH)).changes == ("raw IPv4: chain PREROUTING: hooked to enf-PREROUTING",)
    hooks = [line for line in saved(4) if line.startswith("-A PREROUTING")]
    assert hooks == ["-A PREROUTING -j enf-PREROUTING", "-A PREROUTING -j ACCEPT"]


@pytest.mark.parametrize(
    "options", ["timeout 1000", "counters", "comment", "maxelem 2"], ids=lambda options: f"made with {options}"
)
def test_a_set_with_other_options_is_rebuilt_under_the_rules_that_use_it(inside: str, options: str) -> None:
    run("ipset", "create", SET4, "hash:net", "family", "inet", *options.split())
    BACKEND.apply(plan(RICH))
    assert f"create {SET4} hash:net family inet" in everything()
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_a_set_of_another_type_is_refused_by_name(inside: str) -> None:
    run("ipset", "create", SET4, "hash:ip")
    with pytest.raises(HostError, match=rf"{SET4} is of type hash:ip.*enforcer detach"):
        BACKEND.apply(plan(RICH))
    BACKEND.detach()
    assert BACKEND.apply(plan(RICH)).changes


def test_a_pass_cut_short_is_finished_by_the_next(inside: str) -> None:
    scratch = f"{SET4[:5]}~{SET4[5:]}"
    run("ipset", "create", scratch, "hash:net")
    run("ipset", "create", SET4, "hash:net", "maxelem", "2")
    BACKEND.apply(plan(RICH))
    assert scratch not in run("ipset", "list", "-n").split()

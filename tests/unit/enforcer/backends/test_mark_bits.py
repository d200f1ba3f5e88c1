"""A mark mask, divided between an Allow and a Deny."""

from __future__ import annotations

import pytest

from enforcer.backends.netfilter.settings import accept_bit, drop_bit
from enforcer.policy.resources import FelixConfiguration


@pytest.mark.parametrize(
    ("mask", "accept", "deny"),
    [
        (FelixConfiguration("default").iptables_mark_mask, 0x10000, 0x20000),
        (0xF0F0, 0x10, 0x20),
        (1 << 31, 1 << 31, 0),
        (0, 0, 0),
    ],
    ids=["Felix's", "with gaps", "one bit", "none"],
)
def test_a_deny_has_the_bit_after_that_of_an_allow(mask: int, accept: int, deny: int) -> None:
    assert (accept_bit(mask), drop_bit(mask)) == (accept, deny)

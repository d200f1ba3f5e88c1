"""A mark mask, divided between an Allow and a Deny."""

from __future__ import annotations

import pytest

from enforcer.backends.netfilter.settings import accept_bit, deny_bits
from enforcer.policy.resources import FelixConfiguration


@pytest.mark.parametrize(
    ("mask", "accept", "deny"),
    [
        (FelixConfiguration("default").iptables_mark_mask, 0x10000, 0xFFFE0000),
        (0xF0F0, 0x10, 0xF0E0),
        (1 << 31, 1 << 31, 0),
        (0, 0, 0),
    ],
    ids=["Felix's", "with gaps", "one bit", "none"],
)
def test_a_deny_has_every_bit_but_that_of_an_allow(mask: int, accept: int, deny: int) -> None:
    assert (accept_bit(mask), deny_bits(mask)) == (accept, deny)

"""What the libiptc binding assumes about the kernel's structures, and its error if something is missing."""

from __future__ import annotations

import pytest

from enforcer.backends.iptables import blob
from enforcer.backends.iptables.blob import SetIndex
from enforcer.backends.iptables.rules import Rule, Verdict
from enforcer.kernel import libiptc
from enforcer.model.errors import HostError


@pytest.mark.parametrize("version", [4, 6])
def test_the_length_of_a_rule_is_where_the_kernel_has_it(version: int) -> None:
    packed = blob.encode(Rule(Verdict.ACCEPT), version, SetIndex({}))
    at = libiptc.NEXT_OFFSET[version]
    assert int.from_bytes(packed[at : at + 2], "little") == len(packed)


def test_a_library_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libiptc, "_SONAMES", {4: "libip4tc.so.999"})
    libiptc._functions.cache_clear()
    try:
        with pytest.raises(HostError, match=r"libip4tc.so.999 cannot be loaded; install the package iptables"):
            libiptc.Snapshot(4, "raw")
    finally:
        libiptc._functions.cache_clear()

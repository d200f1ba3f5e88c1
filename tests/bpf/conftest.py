"""The XDP program with the policy of tests/bpf/test_xdp_untracked.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf.xdp_program import LISTS, Program, loaded, table_of


@pytest.fixture
def program() -> Iterator[Program]:
    yield from loaded(table_of(*LISTS))


@pytest.fixture
def without_failsafes() -> Iterator[Program]:
    yield from loaded(table_of(*LISTS, inbound=(), outbound=()))

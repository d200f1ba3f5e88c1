"""Conntrack's own counter of drops, as /proc/net/stat/nf_conntrack shows it: a line per CPU, hexadecimal."""

from __future__ import annotations

from pathlib import Path

import pytest

from dossim.lab import sysctl

NAMES = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop "
CPUS = "\n000003de  00000000 00000000 00000000 0000010a 000001f5 00000000 00000000 00000000 00000002 {} 00000007 "


@pytest.fixture
def statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "nf_conntrack"
    monkeypatch.setattr(sysctl, "STATISTICS", path)
    return path


def test_the_drops_of_all_cpus_are_added(statistics: Path) -> None:
    statistics.write_text(NAMES + CPUS.format("0000000f") + CPUS.format("00000010") + "\n")
    assert sysctl.conntrack_drops() == 31


def test_another_order_of_columns_is_read_by_name(statistics: Path) -> None:
    statistics.write_text("drop  entries\n00000003  00000004\n")
    assert sysctl.conntrack_drops() == 3


def test_a_kernel_without_the_counter_is_not_a_counter_of_zero(statistics: Path) -> None:
    assert sysctl.conntrack_drops() is None

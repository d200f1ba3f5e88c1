"""The metrics of feeds, as Prometheus reads them, and their page."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from enforcer.feeds.canonical import Size
from enforcer.feeds.metrics import METRICS, exposition
from enforcer.feeds.state import FeedState, Status

PAGE = (Path(__file__).parents[4] / "docs" / "feeds.md").read_text()
GOOD = FeedState(status=Status.TAKEN, attempted_s=20.5, good_s=1_790_000_000.0, size=Size(7, 70), expires_s=99)
HELD = FeedState(status=Status.HELD, attempted_s=5.0)


def test_prometheus_reads_them() -> None:
    families = list(text_string_to_metric_families(exposition({"drop": GOOD, "other": HELD}).decode()))
    assert [family.name for family in families] == list(METRICS)
    assert all(family.type == "gauge" and family.documentation for family in families)
    values = {(sample.name, sample.labels["feed"]): sample.value for family in families for sample in family.samples}
    assert values["enforcer_feed_last_success_timestamp_seconds", "drop"] == 1_790_000_000.0
    assert values["enforcer_feed_last_attempt_timestamp_seconds", "drop"] == 20.5
    assert (values["enforcer_feed_held", "drop"], values["enforcer_feed_held", "other"]) == (0.0, 1.0)
    assert values["enforcer_feed_cidrs", "drop"] == 7.0
    assert ("enforcer_feed_cidrs", "other") not in values


@pytest.mark.parametrize("name", METRICS)
def test_each_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE

"""Documents of :mod:`tests.support.dump` load as the resources that were dumped; so counter-example files are exact."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy.load import load_documents, load_text
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.validate_felix import FIELDS
from tests.support.dump import as_text, documents
from tests.support.strategies import resources


@given(resources())
def test_what_is_dumped_loads_as_the_same_resources(policy: Resources) -> None:
    assert load_documents(documents(policy)) == policy


@given(resources())
def test_the_text_says_what_the_documents_say(policy: Resources) -> None:
    """Positions differ, because the text has lines."""
    loaded = load_text(as_text(documents(policy)))
    assert documents(loaded) == documents(policy)


# Fields that are not set where they are empty, which their defaults are.
NOT_EMPTY: dict[str, Any] = {
    "metrics_host": "127.0.0.1",
    "metrics_ca_file": "/etc/ca.pem",
    "metrics_cert_file": "/etc/cert.pem",
    "metrics_key_file": "/etc/key.pem",
    "health_timeouts_s": (("pass", 90.0), ("event loop", 2.5)),
}


@given(st.sets(st.sampled_from(sorted(name for name, _ in FIELDS.values()))))
def test_a_field_of_felix_is_written_where_it_was(written: set[str]) -> None:
    given = {name: value for name, value in NOT_EMPTY.items() if name in written}
    felix = FelixConfiguration("default", **given, written=frozenset(written - {"log_action_rate_limit"}))
    policy = Resources(felix_configurations=(felix,))
    assert load_documents(documents(policy)) == policy
    empty = FelixConfiguration("default", failsafe_inbound=(), written=frozenset({"failsafe_inbound"}))
    other = Resources(felix_configurations=(empty,))
    assert load_documents(documents(other)) == other

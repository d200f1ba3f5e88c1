"""Where metrics and health are served: the command line before the FelixConfiguration."""

from __future__ import annotations

import pytest

from enforcer.model.errors import UsageError
from enforcer.monitor.settings import OFF, Address, Given, Tls, parse_address, wanted
from enforcer.policy.resources import FelixConfiguration

HERE = Address("127.0.0.1", 9091)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9091", HERE),
        (":9091", Address("", 9091)),
        ("[::1]:9091", Address("::1", 9091)),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        ("node-1.example:65535", Address("node-1.example", 65535)),
        ("off", OFF),
    ],
)
def test_an_address(text: str, address: Address | str) -> None:
    assert parse_address(text) == address
    if isinstance(address, Address):
        assert str(address) == text


@pytest.mark.parametrize(
    "text", ["9091", "::1:9091", "host:0", "host:65536", "host:", "", "a b:1", "http://x:1", "x:-1"]
)
def test_no_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected HOST:PORT"):
        parse_address(text)


def felix(**fields: object) -> FelixConfiguration:
    return FelixConfiguration("default", **fields)  # type: ignore[arg-type]  # of several types


@pytest.mark.parametrize(
    ("configuration", "given", "metrics", "health"),
    [
        (felix(), Given(), None, None),
        (felix(metrics_enabled=True), Given(), Address("", 9091), None),
        (felix(metrics_enabled=True, metrics_port=0), Given(), None, None),
        (felix(health_enabled=True), Given(), None, Address("localhost", 9099)),
        (felix(metrics_enabled=True, metrics_host="10.0.0.1", metrics_port=7), Given(HERE), HERE, None),
        (felix(metrics_enabled=True, health_enabled=True), Given(OFF, OFF), None, None),
        (felix(), Given(HERE, HERE), HERE, HERE),
    ],
)
def test_who_decides(
    configuration: FelixConfiguration, given: Given, metrics: Address | None, health: Address | None
) -> None:
    found = wanted(configuration, given)
    assert (found.metrics, found.health) == (metrics, health)


def test_the_tls_files_hold_for_an_address_of_the_command_line_too() -> None:
    found = wanted(felix(metrics_cert_file="/c", metrics_key_file="/k"), Given(HERE))
    assert found.tls == Tls("/c", "/k", "", "NoClientCert")
    assert wanted(felix(), Given(HERE)).tls is None


def test_client_certificates_without_tls_are_not_served_as_plain_http() -> None:
    assert wanted(felix(metrics_client_auth="RequireAndVerifyClientCert"), Given(HERE)).tls is not None

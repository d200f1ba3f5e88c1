"""Where metrics and health are served: from the command line, else from the FelixConfiguration. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from enforcer.model.errors import UsageError
from enforcer.policy.resources import FelixConfiguration

OFF = "off"
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([\w.-]*)):([0-9]{1,5})")
_PORT_MAX = 65535


@dataclass(frozen=True)
class Address:
    """``host`` "": all addresses of the host, IPv4 and IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Tls:
    """Files, as the FelixConfiguration names them; ``auth`` is its prometheusMetricsClientAuth."""

    cert_file: str
    key_file: str
    ca_file: str
    auth: str

    @property
    def wanted(self) -> bool:
        """Whether anything but plain HTTP is asked for. Felix serves plain HTTP where certificates are not given but
        client certificates are required; here that is an error.
        """
        return bool(self.cert_file or self.key_file or self.ca_file or self.auth != "NoClientCert")


@dataclass(frozen=True)
class Given:
    """What the command line says; None: what the FelixConfiguration says; ``OFF``: never."""

    metrics: Address | str | None = None
    health: Address | str | None = None


@dataclass(frozen=True)
class Wanted:
    """``metrics``, ``health``: None where there is no server. ``timeouts_s``: of health components."""

    metrics: Address | None
    tls: Tls | None
    health: Address | None
    process: bool
    timeouts_s: tuple[tuple[str, float], ...]


def parse_address(text: str) -> Address | str:
    """``HOST:PORT``, ``:PORT``, ``[IPV6]:PORT`` or ``off``. Raises UsageError."""
    if text == OFF:
        return OFF
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[3]) <= _PORT_MAX:
        raise UsageError(f"{text!r}: expected HOST:PORT, such as 127.0.0.1:9091, [::1]:9091, :9091 (all), or {OFF}")
    return Address(found[1] or found[2] or "", int(found[3]))


def wanted(felix: FelixConfiguration, given: Given) -> Wanted:
    tls = Tls(felix.metrics_cert_file, felix.metrics_key_file, felix.metrics_ca_file, felix.metrics_client_auth)
    return Wanted(
        metrics=_address(given.metrics, felix.metrics_enabled, felix.metrics_host, felix.metrics_port),
        tls=tls if tls.wanted else None,
        health=_address(given.health, felix.health_enabled, felix.health_host, felix.health_port),
        process=felix.metrics_of_process,
        timeouts_s=felix.health_timeouts_s,
    )


def _address(given: Address | str | None, enabled: bool, host: str, port: int) -> Address | None:
    if isinstance(given, Address):
        return given
    return Address(host, port) if given is None and enabled and port else None

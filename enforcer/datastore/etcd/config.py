"""How to reach etcd, from Calico's configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from enforcer.datastore.apiconfig import ApiConfig
from enforcer.datastore.pem import Pem
from enforcer.model.errors import UsageError
from enforcer.policy.nodes import shown
from enforcer.system.files import UnreadableError

_ENDPOINT = re.compile(r"(?:(?P<scheme>\w+)://)?(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^\s\[\]:/?#@]+):(?P<port>\d{1,5})/?")


@dataclass(frozen=True)
class Endpoint:
    """A member of the cluster, or a proxy: ``host:port``, with TLS or without."""

    target: str
    tls: bool

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.target}"


@dataclass(frozen=True)
class EtcdConfig:
    endpoints: tuple[Endpoint, ...]
    ca: Pem
    cert: Pem
    key: Pem
    username: str = ""
    password: str = field(default="", repr=False)

    def require_files(self) -> None:
        """Raises UsageError if a file of a certificate or key cannot be read."""
        for pem in (self.ca, self.cert, self.key):
            try:
                pem.read()
            except UnreadableError as error:
                raise UsageError(str(error)) from error


def etcd_config(api: ApiConfig) -> EtcdConfig:
    """Raises UsageError for settings that are missing, malformed or contradict each other."""
    if api.get("etcdDiscoverySrv"):
        instead = api.called("etcdEndpoints").rpartition(" ")[2]
        raise UsageError(f"{api.called('etcdDiscoverySrv')}: discovery by DNS is not supported; list them in {instead}")
    inline = [name for name in ("etcdCACert", "etcdCert", "etcdKey") if api.get(name)]
    named = [name for name in ("etcdCACertFile", "etcdCertFile", "etcdKeyFile") if api.get(name)]
    if inline and named:
        raise UsageError(
            f"{api.called(inline[0])}: certificates are either here or in files, but {named[0]} is set too"
        )
    for pair in (("etcdCert", "etcdKey"), ("etcdCertFile", "etcdKeyFile"), ("etcdUsername", "etcdPassword")):
        given, missing = sorted(pair, key=lambda name: not api.get(name))
        if api.get(given) and not api.get(missing):
            raise UsageError(f"{api.called(given)}: needs {api.called(missing).rpartition(' ')[2]} as well")
    ca, cert, key = (_pem(api, name) for name in ("etcdCACert", "etcdCert", "etcdKey"))
    return EtcdConfig(
        _endpoints(api, tls=bool(inline or named)), ca, cert, key, api.get("etcdUsername"), api.get("etcdPassword")
    )


def _pem(api: ApiConfig, name: str) -> Pem:
    path = api.get(f"{name}File")
    return Pem(api.called(f"{name}File" if path else name), path, api.get(name))


def _endpoints(api: ApiConfig, *, tls: bool) -> tuple[Endpoint, ...]:
    """``tls``: whether an endpoint without a scheme uses TLS."""
    called = api.called("etcdEndpoints")
    found: dict[Endpoint, None] = {}
    for text in filter(None, (item.strip() for item in api.get("etcdEndpoints").split(","))):
        parts = _ENDPOINT.fullmatch(text)
        if parts is None or not 0 < int(parts["port"]) < 65536:
            raise UsageError(f"{called}: expected https://HOST:PORT, found {shown(text)}")
        scheme = parts["scheme"] or ("https" if tls else "http")
        if scheme not in ("http", "https"):
            raise UsageError(f"{called}: expected http or https, found {shown(scheme)} in {shown(text)}")
        found[Endpoint(f"{parts['host']}:{int(parts['port'])}", scheme == "https")] = None
    if not found:
        raise UsageError(f"{called}: no endpoint; expected https://HOST:PORT, several separated by commas")
    return tuple(found)

"""How to reach the Kubernetes API, from Calico's configuration: a kubeconfig, a service account, or both overridden."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from enforcer.datastore.apiconfig import ApiConfig
from enforcer.datastore.kubernetes.kubeconfig import Credentials, Token, read_kubeconfig
from enforcer.datastore.pem import Pem
from enforcer.model.errors import UsageError
from enforcer.policy.nodes import shown
from enforcer.system.files import UnreadableError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
V1, V3 = "crd.projectcalico.org/v1", "projectcalico.org/v3"

_TRUTHS = {"true": True, "1": True, "t": True, "": False, "false": False, "0": False, "f": False}


@dataclass(frozen=True)
class Server:
    """Where the API is. ``base``: the path before ``/api``, without a slash at its end."""

    host: str
    port: int
    tls: bool
    base: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base}"


@dataclass(frozen=True)
class KubernetesConfig:
    """``group``: the API group with its version, "" to discover it. ``server_name``: that of the certificate.
    ``insecure``: any certificate is accepted.
    """

    server: Server
    ca: Pem
    cert: Pem
    key: Pem
    token: Token
    server_name: str
    insecure: bool = False
    group: str = ""

    def require_files(self) -> None:
        """Raises UsageError if a file of a certificate, key or token cannot be read."""
        for item in (self.ca, self.cert, self.key, self.token):
            try:
                item.read()
            except UnreadableError as error:
                raise UsageError(str(error)) from error


def kubernetes_config(
    api: ApiConfig, environment: Mapping[str, str] = os.environ, account: Path = SERVICE_ACCOUNT
) -> KubernetesConfig:
    """``environment``, ``account``: where a pod finds its API server and its service account.

    A kubeconfig counts before the service account; Calico's other settings override single values of either. Raises
    UsageError for settings that are missing, malformed or contradict each other.
    """
    found = _found(api, environment, account)
    server = _server(found.server, found.called)
    cert, key = _override(api, "k8sCertFile", found.cert), _override(api, "k8sKeyFile", found.key)
    for one, other in ((cert, key), (key, cert)):
        if _is_set(one) and not _is_set(other):
            raise UsageError(f"{one.called}: a client certificate needs its key, and a key its certificate")
    token = found.token
    if text := api.get("k8sAPIToken"):
        token = Token(api.called("k8sAPIToken"), text=text)
    insecure = _truth(api, "k8sInsecureSkipTLSVerify") or found.insecure
    ca = _override(api, "k8sCAFile", found.ca)
    if insecure and _is_set(ca):
        raise UsageError(f"{ca.called}: a certificate authority, and the server's certificate is not to be verified")
    if not server.tls and (token.path or token.text or _is_set(cert)):
        raise UsageError(f"{found.called}: {server}: credentials are sent over https only")
    return KubernetesConfig(
        server, ca, cert, key, token, found.server_name or server.host, insecure=insecure, group=_group(api)
    )


def _found(api: ApiConfig, environment: Mapping[str, str], account: Path) -> Credentials:
    """What the kubeconfig says, else what a pod finds, with Calico's endpoint."""
    endpoint, called = api.get("k8sAPIEndpoint"), api.called("k8sAPIEndpoint")
    path, inline = api.get("kubeconfig"), api.get("kubeconfigInline")
    context = api.get("k8sCurrentContext")
    if path and inline:
        raise UsageError(f"{api.called('kubeconfigInline')}: a kubeconfig is either here or in a file, found both")
    if path or inline:
        found = read_kubeconfig(api.called("kubeconfig" if path else "kubeconfigInline"), path, inline, context)
        return replace(found, server=endpoint, called=called) if endpoint else found
    if context:
        raise UsageError(f"{api.called('k8sCurrentContext')}: there is no kubeconfig to take a context from")
    if endpoint:
        return Credentials(called, endpoint)
    host, port = (environment.get(f"KUBERNETES_SERVICE_{word}", "") for word in ("HOST", "PORT"))
    if not (host and port):
        names = " or ".join(api.called(name).rpartition(" ")[2] for name in ("kubeconfig", "k8sAPIEndpoint"))
        raise UsageError(
            f"{api.origin}: no Kubernetes API server: set {names}, or run in a pod (KUBERNETES_SERVICE_HOST and "
            "KUBERNETES_SERVICE_PORT)"
        )
    called = "service account"
    return Credentials(
        "KUBERNETES_SERVICE_HOST",
        f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca=Pem(called, str(account / "ca.crt")),
        token=Token(called, str(account / "token")),
    )


def _server(text: str, called: str) -> Server:
    expected = f"{called}: expected https://HOST:PORT, found {shown(text)}"
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port
    except ValueError as error:
        raise UsageError(expected) from error
    is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not is_plain:
        raise UsageError(expected)
    if not re.fullmatch(r"[\w.:%-]+", parts.hostname, re.ASCII) or not re.fullmatch(
        r"[\w./~%-]*", parts.path, re.ASCII
    ):
        raise UsageError(expected)
    tls = parts.scheme == "https"
    return Server(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))


def _override(api: ApiConfig, name: str, otherwise: Pem) -> Pem:
    return Pem(api.called(name), path) if (path := api.get(name)) else otherwise


def _is_set(pem: Pem) -> bool:
    return bool(pem.path or pem.text)


def _truth(api: ApiConfig, name: str) -> bool:
    text = api.get(name)
    try:
        return _TRUTHS[text.lower()]
    except KeyError:
        raise UsageError(f"{api.called(name)}: expected true or false, found {shown(text)}") from None


def _group(api: ApiConfig) -> str:
    group = api.get("calicoAPIGroup")
    if group not in ("", V1, V3):
        raise UsageError(f"{api.called('calicoAPIGroup')}: expected {V1} or {V3}, found {shown(group)}")
    return group

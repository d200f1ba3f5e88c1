"""Reads a kubeconfig: the cluster and the user of one context.

What would need a program or a protocol of its own is refused, each with its sentence; fields that kubectl does not use
to connect are ignored.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass, field

from enforcer.datastore.pem import Pem
from enforcer.model.errors import UsageError
from enforcer.policy.nodes import DocumentFault, Fieldset, Items, Node, Scalar, from_text, shown
from enforcer.system import files
from enforcer.system.files import UnreadableError

_TOKEN = re.compile(r"[\x21-\x7e]+")
_TOKEN_MAX_BYTES, _MAX_BYTES = 1 << 20, 16 << 20  # a kubeconfig may have the certificates of many clusters
_REFUSED = {
    "exec": "an exec plugin is a program, and the agent starts none; use a token (tokenFile) or a client certificate, "
    "for example those of a service account",
    "auth-provider": "auth providers are not supported (Kubernetes 1.26 removed them); use a token or a client "
    "certificate",
    "username": "passwords are not supported (Kubernetes 1.19 removed them); use a token or a client certificate",
    "as": "impersonation is not supported; use the credentials of that user",
    "proxy-url": "proxies are not supported; name a server that can be reached directly",
}


@dataclass(frozen=True)
class Token:
    """A bearer token: a file, read for each connection because tokens are renewed, or its text. ``called``: the
    setting, for messages.
    """

    called: str = ""
    path: str = ""
    text: str = field(default="", repr=False)

    def read(self) -> str:
        """The token; "" if not configured. Raises UnreadableError."""
        text, where = self.text, self.called
        if self.path:
            where = f"{self.called}: {self.path}"
            try:
                text = files.read_text(self.path, limit_bytes=_TOKEN_MAX_BYTES, instead="a token is expected").strip()
            except UnreadableError as error:
                raise UnreadableError(f"{where}: {error}") from error
        if (self.path or text) and not _TOKEN.fullmatch(text):
            raise UnreadableError(f"{where}: expected a token, one word, found {'several' if text else 'nothing'}")
        return text


_NONE, _NO_TOKEN = Pem(""), Token()


@dataclass(frozen=True)
class Credentials:
    """A server and how to be known there. ``called``: where the server is named, for messages."""

    called: str
    server: str
    ca: Pem = _NONE
    cert: Pem = _NONE
    key: Pem = _NONE
    token: Token = _NO_TOKEN
    server_name: str = ""
    insecure: bool = False


def read_kubeconfig(called: str, path: str, inline: str, context: str) -> Credentials:
    """The credentials of a context, without one of the current context.

    ``called``: the setting. ``path``: the file, "" for ``inline``. Raises UsageError.
    """
    where = path or called
    try:
        text = inline or files.read_text(path, limit_bytes=_MAX_BYTES, instead="a kubeconfig is expected")
        documents = list(from_text(text))
    except UnreadableError as error:
        raise UsageError(f"{called}: {path}: {error}") from error
    except DocumentFault as fault:
        place = f":{fault.line}:{fault.column}" if fault.line else ""
        raise UsageError(f"{where}{place}: {fault.message}") from fault
    if len(documents) != 1 or not isinstance(documents[0], Fieldset):
        raise UsageError(f"{where}: expected one document, a kubeconfig (apiVersion: v1, kind: Config)")
    return _Reader(where, os.path.dirname(path)).read(documents[0], context)


class _Reader:
    """``folder``: what paths in the file are relative to."""

    def __init__(self, where: str, folder: str) -> None:
        self._where, self._folder = where, folder

    def read(self, document: Fieldset, wanted: str) -> Credentials:
        name = wanted or self._text(document, "current-context", "")
        if not name:
            raise UsageError(f"{self._where}: current-context: missing; it names the context to use")
        context = self._named(document, "contexts", "context", name)
        cluster_name = self._text(context, "cluster", f"contexts[{name}].context.")
        user_name = self._text(context, "user", f"contexts[{name}].context.")
        if not cluster_name:
            raise UsageError(f"{self._at(context)}: contexts[{name}].context.cluster: missing")
        cluster = self._named(document, "clusters", "cluster", cluster_name)
        user = self._named(document, "users", "user", user_name) if user_name else Fieldset({}, {}, [])
        at_cluster, at_user = f"clusters[{cluster_name}].cluster.", f"users[{user_name}].user."
        for section, prefix in ((cluster, at_cluster), (user, at_user)):
            for field_name, why in _REFUSED.items():
                found = section.fields.get(field_name)
                if found is not None and not (isinstance(found, Scalar) and found.value in (None, "")):
                    raise UsageError(f"{self._at(found)}: {prefix}{field_name}: {why}")
        server = self._text(cluster, "server", at_cluster)
        if not server:
            raise UsageError(f"{self._at(cluster)}: {at_cluster}server: missing; expected https://HOST:PORT")
        return Credentials(
            f"{self._where}: {at_cluster}server",
            server,
            ca=self._pem(cluster, "certificate-authority", at_cluster),
            cert=self._pem(user, "client-certificate", at_user),
            key=self._pem(user, "client-key", at_user),
            token=self._token(user, at_user),
            server_name=self._text(cluster, "tls-server-name", at_cluster),
            insecure=self._truth(cluster, "insecure-skip-tls-verify", at_cluster),
        )

    def _named(self, document: Fieldset, plural: str, singular: str, name: str) -> Fieldset:
        """The entry of this name in one of the lists."""
        entries = document.fields.get(plural)
        if entries is not None and not isinstance(entries, Items):
            raise UsageError(f"{self._at(entries)}: {plural}: expected a list, found {entries}")
        for index, entry in enumerate(entries.items if entries else []):
            if not isinstance(entry, Fieldset):
                raise UsageError(f"{self._at(entry)}: {plural}[{index}]: expected a mapping, found {entry}")
            if self._text(entry, "name", f"{plural}[{index}].") == name:
                found = entry.fields.get(singular)
                if not isinstance(found, Fieldset):
                    at = f"{self._at(entry)}: {plural}[{name}].{singular}"
                    raise UsageError(f"{at}: expected a mapping, found {found or 'nothing'}")
                return found
        raise UsageError(f"{self._at(entries)}: {plural}: there is no {singular} named {shown(name)}")

    def _pem(self, section: Fieldset, name: str, prefix: str) -> Pem:
        """A certificate or key; the data counts before the file, as for kubectl."""
        called = f"{self._where}: {prefix}{name}"
        if data := self._text(section, f"{name}-data", prefix):
            try:
                text = base64.b64decode(data, validate=True).decode("ascii")
            except (binascii.Error, UnicodeDecodeError) as error:
                at = self._at(section.fields[f"{name}-data"])
                raise UsageError(f"{at}: {prefix}{name}-data: expected PEM in base64: {error}") from error
            return Pem(f"{called}-data", text=text)
        path = self._text(section, name, prefix)
        return Pem(called, os.path.join(self._folder, path) if path else "")

    def _token(self, user: Fieldset, prefix: str) -> Token:
        """The token; the file counts before the text, as for kubectl."""
        called = f"{self._where}: {prefix}"
        if path := self._text(user, "tokenFile", prefix):
            return Token(f"{called}tokenFile", os.path.join(self._folder, path))
        return Token(f"{called}token", text=self._text(user, "token", prefix))

    def _text(self, section: Fieldset, name: str, prefix: str) -> str:
        node = section.fields.get(name)
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return ""
        if not isinstance(node, Scalar) or isinstance(node.value, bool):
            raise UsageError(f"{self._at(node)}: {prefix}{name}: expected a string, found {node}")
        return node.written or str(node.value)

    def _truth(self, section: Fieldset, name: str, prefix: str) -> bool:
        node = section.fields.get(name)
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return False
        if not isinstance(node, Scalar) or not isinstance(node.value, bool):
            raise UsageError(f"{self._at(node)}: {prefix}{name}: expected true or false, found {node}")
        return node.value

    def _at(self, node: Node | None) -> str:
        return f"{self._where}:{node.line}:{node.column}" if node is not None and node.line else self._where

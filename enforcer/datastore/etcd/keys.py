"""Calico's keys in etcd (``libcalico-go/lib/backend/model/resource.go``)."""

from __future__ import annotations

from enforcer.datastore.etcd.client import KeyValue, Span, prefix
from enforcer.policy.objects import PLURALS, StoredObject, path_of
from enforcer.policy.validate import KINDS

CALICO = "/calico/"
RESOURCES = f"{CALICO}resources/v3/projectcalico.org/"

# The client makes this one up (etcdv3.go), so the key must not exist; the compiler knows it as well.
_MADE_UP = ("profiles", "", "projectcalico-default-allow")


def spans(node: str) -> tuple[Span, ...]:
    """What is followed: every object of each kind, but of nodes, of which a fleet has many, only the agent's own."""
    kinds = [prefix(f"{RESOURCES}{plural}/") for plural in PLURALS if plural != "nodes"]
    return (*kinds, Span(f"{RESOURCES}nodes/{node}".encode()))


def stored(item: KeyValue) -> StoredObject | None:
    """The object of a key; None for a key that Calico does not take for one either."""
    named = _named(item.key)
    return StoredObject(*named, item.value, str(item.revision)) if named and named != _MADE_UP else None


def path(key: bytes) -> str | None:
    """The path of the object of a key, as in :class:`StoredObject`."""
    named = _named(key)
    return path_of(*named) if named else None


def plural(key: bytes) -> str:
    """The kind of a key that is followed."""
    return key[len(RESOURCES) :].partition(b"/")[0].decode(errors="backslashreplace")


def _named(key: bytes) -> tuple[str, str, str] | None:
    """The plural, namespace and name of a key."""
    kind, _, rest = key.decode(errors="backslashreplace").removeprefix(RESOURCES).partition("/")
    namespace, _, name = rest.rpartition("/") if KINDS[PLURALS[kind]].namespaced else ("", "", rest)
    return (kind, namespace, name) if name else None

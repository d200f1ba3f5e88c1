"""How the enforcer verifies servers."""

from __future__ import annotations

import ssl


def client_context(*, cafile: str | None = None, cadata: str | None = None) -> ssl.SSLContext:
    """As ``ssl.create_default_context``, which raises OSError and SSLError, and the same with every Python.

    From 3.13 Python also requires the extensions that RFC 5280 requires of an authority (key usage, key identifiers).
    The authorities of many clusters lack them, and Go, in which Calico and kubectl are written, does not ask for them.
    """
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context

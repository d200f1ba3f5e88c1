"""Servers are verified alike with every Python."""

from __future__ import annotations

import ssl

import pytest

from enforcer.system.tls import client_context


def test_what_python_requires_since_3_13_is_not_required(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ssl.create_default_context

    def of_3_13(**given: str | None) -> ssl.SSLContext:
        context = made(**given)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", of_3_13)
    context = client_context()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname

"""TLS of the metrics server, as the FelixConfiguration describes it. Certificates are read again when they change."""

from __future__ import annotations

import os
import ssl

from enforcer.model.errors import HostError
from enforcer.monitor.settings import Tls

_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class TlsContext:
    """A server's context for as long as its files are unchanged. Raises HostError for what cannot be served."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._stamp = self._look()
        self._context = _context(tls)

    def current(self) -> ssl.SSLContext:
        """The context of the present files; of the last ones that could be read while these cannot be."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = _context(self._tls)
            except HostError:  # half written: they change again when they are complete
                return self._context
        return self._context

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in (self._tls.cert_file, self._tls.key_file, self._tls.ca_file) if path)


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _context(tls: Tls) -> ssl.SSLContext:
    if not (tls.cert_file and tls.key_file):
        missing = "prometheusMetricsKeyFile" if tls.cert_file else "prometheusMetricsCertFile"
        raise HostError(f"{missing} is not set: TLS needs a certificate and a key, and client certificates need TLS")
    if tls.auth not in _VERIFY:
        raise HostError(f"prometheusMetricsClientAuth {tls.auth} is not supported here; use RequireAndVerifyClientCert")
    if tls.auth != "NoClientCert" and not tls.ca_file:
        raise HostError(f"prometheusMetricsClientAuth {tls.auth} needs prometheusMetricsCAFile")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: "")  # never ask at a terminal
    except (OSError, ValueError) as error:
        raise HostError(f"{tls.cert_file}, {tls.key_file}: no certificate with its key: {error}") from error
    if tls.auth != "NoClientCert":
        try:
            context.load_verify_locations(cafile=tls.ca_file)
        except OSError as error:
            raise HostError(f"{tls.ca_file}: no certificates of an authority: {error}") from error
    context.verify_mode = _VERIFY[tls.auth]
    return context

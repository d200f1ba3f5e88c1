"""A certificate authority of a test, and certificates that are valid, expired or not valid yet."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """\
[ca]
default_ca = here
[here]
dir = {folder}
database = $dir/index.txt
serial = $dir/serial
new_certs_dir = $dir
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
organizationName = optional
commonName = supplied
"""


@dataclass(frozen=True)
class Certificate:
    cert: Path
    key: Path


class Authority:
    """Files below ``folder``. Times of validity have the form of openssl-ca(1): YYYYMMDDHHMMSSZ."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        (folder / "ca.cnf").write_text(_CONFIG.format(folder=folder))
        self.cert, self._key = folder / "ca.pem", folder / "ca.key"
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"),
            *("-subj", "/CN=ca of a test", "-keyout", self._key, "-out", self.cert),
        )

    def issue(
        self, name: str, *, group: str = "", since: str = "20200101000000Z", until: str = "20991231235959Z"
    ) -> Certificate:
        """A certificate for this common name and 127.0.0.1, to serve and to connect. ``group``: its organization, which
        is a group of users for Kubernetes.
        """
        stem = self.folder / f"{name}-{since}-{until}"
        made = Certificate(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request = stem.with_suffix(".csr")
        subject = f"/O={group}/CN={name}" if group else f"/CN={name}"
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", made.key, "-out", request),
        )
        self._openssl(
            *("ca", "-batch", "-notext", "-config", self.folder / "ca.cnf", "-cert", self.cert, "-keyfile", self._key),
            *("-startdate", since, "-enddate", until, "-in", request, "-out", made.cert),
        )
        return made

    def _openssl(self, *words: object) -> None:
        done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

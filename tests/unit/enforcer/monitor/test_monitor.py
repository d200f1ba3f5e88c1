"""Monitor on loopback: what it serves, that nothing stops it, and that nothing of it stays."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.agent.state import AgentState
from enforcer.backends.base import EntryCount
from enforcer.datastore.base import StoreState
from enforcer.emergency.expiry import Decision
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.model.errors import HostError
from enforcer.monitor import exposition, status_socket
from enforcer.monitor import monitor as module
from enforcer.monitor.monitor import Monitor
from enforcer.monitor.settings import Address, Given
from enforcer.planning.plan import Plan
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.tolerant import Loaded
from tests.support.stores import GivenStore

DEADLINE_S = 20.0


class NoCounters(Enforcer):
    def counters(self) -> tuple[EntryCount, ...]:
        return ()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Running:
    """A monitor, and how to ask it."""

    def __init__(self, folder: Path, given: Given, textfile: Path | None = None) -> None:
        self.store = GivenStore(Loaded(Resources()), StoreState("files", "a list", False, 0.0, 0.0))
        self.state = AgentState("jasper", self.store)
        self.path = folder / "agent.sock"
        self.monitor = Monitor(self.state, NoCounters("jasper"), given, textfile=textfile, path=self.path)

    def get(self, port: int, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def passes(self) -> None:
        with self.state.applying():
            self.state.applied(Applied(Plan("jasper", ())), Resources(), Decision())
        self.state.up_to_date()


@contextmanager
def running(folder: Path, given: Given, textfile: Path | None = None) -> Iterator[Running]:
    it = Running(folder, given, textfile)
    with it.monitor:
        yield it


def until(check: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline_s, "in vain"
        time.sleep(0.01)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_metrics_are_served_there_alone(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, Given(Address("127.0.0.1", port))) as it:
        until(lambda: listens(port))
        status, body = it.get(port, "/metrics")
        assert status == 200
        assert b"enforcer_info{" in body
        assert b"process_cpu_seconds_total" in body
        assert it.get(port, "/readiness")[0] == 404
        assert it.get(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].endswith(b"# EOF\n")
        assert b"enforcer_info{" in gzip.decompress(it.get(port, "/metrics", **{"Accept-Encoding": "gzip"})[1])
    assert not listens(port)


def test_readiness_follows_the_passes(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, Given(health=Address("127.0.0.1", port))) as it:
        until(lambda: listens(port))
        assert [it.get(port, path)[0] for path in ("/liveness", "/readiness")] == [200, 503]
        it.passes()
        assert [it.get(port, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
        status, body = it.get(port, "/readiness")
        assert status == 200
        assert b"not connected" in body


def test_the_felix_configuration_switches_servers_on_and_off(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    with running(tmp_path, Given()) as it:
        it.state.configured(FelixConfiguration("a", metrics_enabled=True, metrics_host="127.0.0.1", metrics_port=first))
        until(lambda: listens(first))
        it.state.configured(
            FelixConfiguration("a", metrics_enabled=True, metrics_host="127.0.0.1", metrics_port=second)
        )
        until(lambda: listens(second) and not listens(first))
        it.state.configured(FelixConfiguration("a"))
        until(lambda: not listens(second))


def test_a_port_that_is_taken_is_said_once_and_served_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.05)
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with running(tmp_path, Given(Address("127.0.0.1", port))) as it:
            until(lambda: "the port is taken" in str([vars(record) for record in caplog.records]))
            time.sleep(0.3)  # several attempts
            other.close()
            until(lambda: _answers(it, port))
    said = [record for record in caplog.records if "cannot serve metrics" in record.getMessage()]
    assert len(said) == 1


def _answers(it: Running, port: int) -> bool:
    try:
        return it.get(port, "/metrics")[0] == 200
    except OSError:
        return False


def test_without_prometheus_client_a_configuration_that_asks_for_metrics_is_answered_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(HostError, match=r"pip install 'dossim\[metrics\]'"):
        exposition.require_prometheus()
    metrics, health = free_port(), free_port()
    with running(tmp_path, Given(Address("127.0.0.1", metrics), Address("127.0.0.1", health))) as it:
        until(lambda: listens(health))
        assert it.get(health, "/liveness")[0] == 200
        assert not listens(metrics)
    assert "cannot serve metrics" in caplog.text


def test_clients_that_say_nothing_hold_up_no_other_server(tmp_path: Path) -> None:
    metrics, health = free_port(), free_port()
    with running(tmp_path, Given(Address("127.0.0.1", metrics), Address("127.0.0.1", health))) as it:
        until(lambda: listens(metrics) and listens(health))
        silent = [socket.create_connection(("127.0.0.1", metrics)) for _ in range(module._AT_ONCE + 1)]
        try:
            silent[-1].settimeout(DEADLINE_S)
            assert silent[-1].recv(1) == b"", "one too many is closed at once"
            assert it.get(health, "/liveness")[0] == 200
        finally:
            for client in silent:
                client.close()


def test_without_descriptors_the_agent_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", none)
    with running(tmp_path, Given()) as it:
        it.passes()
        it.state.configured(FelixConfiguration("a", health_enabled=True))
    assert "no metrics, no health, no status" in caplog.text


def test_the_status_of_a_running_agent(tmp_path: Path) -> None:
    with running(tmp_path, Given()) as it:
        until(it.path.exists)
        assert it.path.stat().st_mode & 0o777 == 0o600
        report = _asked(it.path)
        assert (report["node"], report["enforced"], report["datastore"]["connected"]) == ("jasper", None, False)
        it.passes()
        it.store.said = replace(it.store.said, kept=("GlobalNetworkSet bots",))
        report = _asked(it.path)
        assert report["enforced"]
        assert report["datastore"]["kept"] == ["GlobalNetworkSet bots"]
    assert not it.path.exists()


def _asked(path: Path) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return dict(json.loads(b"".join(iter(lambda: client.recv(65536), b""))))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(None, "No such file"), (b"", "no JSON"), (b"[]", "another version"), (b'{"schema": "x"}', "another version")],
    ids=["no socket", "an agent that ends", "no object", "another version"],
)
def test_an_agent_that_does_not_answer(tmp_path: Path, answer: bytes | None, problem: str) -> None:
    if answer is not None:
        server = status_socket.listen(status_socket.socket_path(tmp_path))
        server.setblocking(True)

        def tell() -> None:
            with server, server.accept()[0] as connection:
                connection.sendall(answer)

        threading.Thread(target=tell).start()
    with pytest.raises(HostError, match=problem):
        status_socket.ask(tmp_path)


def test_a_dead_agents_socket_is_replaced(tmp_path: Path) -> None:
    status_socket.listen(tmp_path / "agent.sock").close()
    with running(tmp_path, Given()) as it:
        until(lambda: _connects(it.path))


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_the_textfile_is_whole_readable_by_others_and_gone_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "enforcer.prom"
    with running(tmp_path, Given(), file):
        until(file.exists)
        assert file.read_text().startswith("# HELP")
        assert "enforcer_info{" in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.iterdir())


def test_a_textfile_follows_no_link(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "enforcer.prom"
    victim.write_text("mine")
    file.symlink_to(victim)
    (tmp_path / f".enforcer.prom.{os.getpid()}").symlink_to(victim)
    with running(tmp_path, Given(), file):
        until(lambda: not file.is_symlink())
    assert victim.read_text() == "mine"


# --- TLS --------------------------------------------------------------------------------------------------------------


class Authority:
    """Certificates made with openssl(1), which nothing else here can make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca",
                  "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")  # fmt: skip

    def make(self, name: str) -> None:
        (self.folder / "ext").write_text("subjectAltName=IP:127.0.0.1")
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                  "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
                  f"{name}.pem", "-days", "2", "-extfile", "ext")  # fmt: skip

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl(1) is missing: it makes the certificates")
    found = Authority(tmp_path_factory.mktemp("tls"))
    for name in ("server", "other", "client"):
        found.make(name)
    return found


def configured(folder: Path, port: int, auth: str, *, ca: bool = True) -> FelixConfiguration:
    return FelixConfiguration(
        "default",
        metrics_enabled=True,
        metrics_host="127.0.0.1",
        metrics_port=port,
        metrics_cert_file=str(folder / "server.pem"),
        metrics_key_file=str(folder / "server.key"),
        metrics_ca_file=str(folder / "ca.pem") if ca else "",
        metrics_client_auth=auth,
    )


def fetch(folder: Path, port: int, client: str = "") -> bytes:
    """The metrics over TLS, with a client certificate if named; and the CN of the server."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if client:
        context.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("auth", "without", "with_one"),
    [
        ("NoClientCert", True, True),
        ("VerifyClientCertIfGiven", True, True),
        ("RequireAndVerifyClientCert", False, True),
    ],
)
def test_client_certificates(tmp_path: Path, authority: Authority, auth: str, without: bool, with_one: bool) -> None:
    port = free_port()
    with running(tmp_path, Given()) as it:
        it.state.configured(configured(authority.folder, port, auth))
        until(lambda: listens(port))
        assert [_gets(authority, port, client) for client in ("", "client")] == [without, with_one]
        assert b"enforcer_info" not in _plain(port)


def _gets(authority: Authority, port: int, client: str) -> bool:
    try:
        return b"enforcer_info{" in fetch(authority.folder, port, client)
    except OSError:
        return False


def _plain(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        try:
            return client.recv(65536)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"metrics_client_auth": "RequireAnyClientCert"}, "RequireAnyClientCert is not supported here"),
        ({"metrics_key_file": ""}, "prometheusMetricsKeyFile is not set"),
        ({"metrics_cert_file": "", "metrics_key_file": ""}, "prometheusMetricsCertFile is not set"),
        ({"metrics_ca_file": ""}, "needs prometheusMetricsCAFile"),
        ({"metrics_key_file": "/nowhere.key"}, "no certificate with its key"),
        ({"metrics_ca_file": "/nowhere.pem"}, "no certificates of an authority"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_tls_that_cannot_be_had_is_never_plain_http(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture, change: dict[str, str], problem: str
) -> None:
    port = free_port()
    felix = replace(configured(authority.folder, port, "RequireAndVerifyClientCert"), **change)
    with running(tmp_path, Given()) as it:
        it.state.configured(felix)
        until(lambda: problem in str([vars(record) for record in caplog.records]))
        assert not listens(port)


def test_a_new_certificate_is_used_without_a_restart(tmp_path: Path, authority: Authority) -> None:
    folder, port = tmp_path / "tls", free_port()
    shutil.copytree(authority.folder, folder)
    with running(tmp_path, Given()) as it:
        it.state.configured(configured(folder, port, "NoClientCert"))
        until(lambda: listens(port))
        before = _certificate(port)
        (folder / "server.pem").write_text("half a cert")  # being replaced: the old one stays
        assert _certificate(port) == before
        for suffix in ("key", "pem"):
            shutil.copy(folder / f"other.{suffix}", folder / f"server.{suffix}")
        assert _certificate(port) == ssl.PEM_cert_to_DER_cert((folder / "other.pem").read_text())
        assert before == ssl.PEM_cert_to_DER_cert((authority.folder / "server.pem").read_text())


def _certificate(port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))

"""Calico's configuration: a file as calicoctl has it, or the environment; and what of it is refused, in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.datastore import apiconfig
from enforcer.datastore.apiconfig import FIELDS, api_config
from enforcer.datastore.etcd.config import Endpoint, EtcdConfig, etcd_config
from enforcer.model.errors import UsageError

FILE = """\
apiVersion: projectcalico.org/v3
kind: CalicoAPIConfig
metadata:
spec:
"""


def of_file(tmp_path: Path, spec: str, text: str = FILE) -> EtcdConfig:
    path = tmp_path / "calicoctl.cfg"
    path.write_text(text + "".join(f"  {line}\n" for line in spec.splitlines()))
    return etcd_config(api_config(path))


def of_environment(**names: str) -> EtcdConfig:
    return etcd_config(api_config(None, names))


@pytest.fixture(autouse=True)
def _no_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apiconfig, "DEFAULT_FILE", tmp_path / "absent.cfg")


def test_file_and_environment_mean_the_same(tmp_path: Path) -> None:
    written = of_file(
        tmp_path,
        'etcdEndpoints: "https://10.0.0.5:2379, https://[fd00::5]:2379/"\netcdUsername: felix\netcdPassword: 0123',
    )
    assert written.endpoints == (Endpoint("10.0.0.5:2379", True), Endpoint("[fd00::5]:2379", True))
    assert (written.username, written.password) == ("felix", "0123")
    named = of_environment(
        ETCD_ENDPOINTS="https://10.0.0.5:2379,https://[fd00::5]:2379", ETCD_USERNAME="felix", ETCD_PASSWORD="0123"
    )
    assert (named.endpoints, named.username, named.password) == (written.endpoints, "felix", "0123")
    assert "0123" not in repr(written) + repr(named)


def test_the_prefix_of_calico_comes_first() -> None:
    made = of_environment(CALICO_ETCD_ENDPOINTS="http://a:1", ETCD_ENDPOINTS="http://b:2")
    assert made.endpoints == (Endpoint("a:1", False),)


def test_a_file_and_the_environment_are_not_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_USERNAME", "felix")
    monkeypatch.setenv("ETCD_PASSWORD", "secret")
    assert of_file(tmp_path, "etcdEndpoints: http://a:1").username == ""


def test_the_file_of_calicoctl_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_file(tmp_path, "etcdEndpoints: http://a:1")
    monkeypatch.setattr(apiconfig, "DEFAULT_FILE", tmp_path / "calicoctl.cfg")
    assert of_environment(ETCD_ENDPOINTS="http://b:2").endpoints == (Endpoint("a:1", False),)


def test_an_endpoint_without_a_scheme_uses_tls_if_certificates_are_configured() -> None:
    assert of_environment(ETCD_ENDPOINTS="a:1").endpoints == (Endpoint("a:1", False),)
    assert of_environment(ETCD_ENDPOINTS="a:1", ETCD_CA_CERT_FILE="/ca").endpoints == (Endpoint("a:1", True),)


REFUSED = [
    ({}, "environment: ETCD_ENDPOINTS: no endpoint; expected https://HOST:PORT, several separated by commas"),
    ({"ETCD_ENDPOINTS": "http://a"}, "environment: ETCD_ENDPOINTS: expected https://HOST:PORT, found 'http://a'"),
    ({"ETCD_ENDPOINTS": "http://a:0"}, "ETCD_ENDPOINTS: expected https://HOST:PORT, found 'http://a:0'"),
    ({"ETCD_ENDPOINTS": "http://a:70000"}, "expected https://HOST:PORT, found 'http://a:70000'"),
    ({"ETCD_ENDPOINTS": "http://user:word@a:1"}, "expected https://HOST:PORT"),
    ({"ETCD_ENDPOINTS": "unix://a:1"}, "expected http or https, found 'unix' in 'unix://a:1'"),
    ({"ETCD_DISCOVERY_SRV": "example.org"}, "discovery by DNS is not supported; list them in ETCD_ENDPOINTS"),
    ({"ETCD_ENDPOINTS": "a:1", "ETCD_CERT_FILE": "/c"}, "environment: ETCD_CERT_FILE: needs ETCD_KEY_FILE as well"),
    ({"ETCD_ENDPOINTS": "a:1", "ETCD_PASSWORD": "x"}, "environment: ETCD_PASSWORD: needs ETCD_USERNAME as well"),
]


@pytest.mark.parametrize(("names", "says"), REFUSED)
def test_what_the_environment_may_not_say(names: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as error:
        of_environment(**names)
    assert says in str(error.value)


REFUSED_FILES = [
    (
        "etcdEndpoint: http://a:1",
        ":5:3: spec.'etcdEndpoint' is not a field of CalicoAPIConfig; did you mean etcdEndpoints?",
    ),
    ("etcdEndpoints: [http://a:1]", ":5:18: spec.etcdEndpoints: expected a string, found a list"),
    ("etcdEndpoints: a:1\netcdEndpoints: b:1", ":6:3: spec.etcdEndpoints: written twice, first at line 5"),
    ("etcdEndpoints: a:1\netcdCert: x\netcdKey: y\netcdCACertFile: /ca", "certificates are either here or in files"),
    ("", "spec: expected a mapping, found nothing"),
    ("etcdEndpoints: {", "not YAML"),
]


@pytest.mark.parametrize(("spec", "says"), REFUSED_FILES)
def test_what_a_file_may_not_say(tmp_path: Path, spec: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        of_file(tmp_path, spec)
    assert f"{tmp_path}/calicoctl.cfg" in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: CalicoAPIConfig\nspec: {}\n", "apiVersion: expected projectcalico.org/v3, found nothing"),
        (FILE.replace("CalicoAPIConfig", "Node"), ":2:7: kind: expected CalicoAPIConfig, found the string 'Node'"),
        ("", "expected one document, apiVersion: projectcalico.org/v3, kind: CalicoAPIConfig"),
        (f"{FILE}---\n{FILE}", "expected one document"),
    ],
)
def test_which_file_it_is_not(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        of_file(tmp_path, "", text)
    assert says in str(error.value)


def test_a_file_that_is_too_large_is_told_what_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"calicoctl\.cfg: larger than 4 MiB; a CalicoAPIConfig is expected"):
        of_file(tmp_path, "", "#" * ((4 << 20) + 1))


def test_a_file_that_is_absent_or_no_pem_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path, says in ((tmp_path / "none", "cannot be read: No such file"), (tmp_path / "ca.pem", "expected PEM")):
        with pytest.raises(UsageError) as error:
            of_environment(ETCD_ENDPOINTS="a:1", ETCD_CA_CERT_FILE=str(path)).require_files()
        assert f"environment: ETCD_CA_CERT_FILE: {path}: {says}" in str(error.value)


def test_secrets_inline_have_no_name_in_the_environment() -> None:
    assert {name for name, word in FIELDS.items() if not word} >= {"etcdKey", "etcdCert", "etcdCACert"}

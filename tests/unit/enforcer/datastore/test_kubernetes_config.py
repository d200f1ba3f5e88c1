"""How the Kubernetes API is reached: kubeconfig, service account, Calico's settings; and what of it is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from enforcer.datastore.apiconfig import ENVIRONMENT, ApiConfig
from enforcer.datastore.kubernetes.config import KubernetesConfig, Server, kubernetes_config
from enforcer.model.errors import UsageError
from enforcer.system.files import UnreadableError

PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
CONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts:
- {{name: here, context: {{cluster: ours, user: felix}}}}
- {{name: other, context: {{cluster: plain, user: felix}}}}
clusters:
- {{name: ours, cluster: {{server: "https://10.0.0.5:6443", {cluster}}}}}
- {{name: plain, cluster: {{server: "https://[fd00::5]/base/"}}}}
users:
- {{name: felix, user: {{{user}}}}}
extensions: []
"""


def config(tmp_path: Path, cluster: str = "", user: str = "token: abc", **settings: str) -> KubernetesConfig:
    path = tmp_path / "kubeconfig"
    path.write_text(CONFIG.format(cluster=cluster, user=user))
    return kubernetes_config(ApiConfig(ENVIRONMENT, {"kubeconfig": str(path), **settings}), {})


def of(environment: dict[str, str], account: Path = Path("/none"), **settings: str) -> KubernetesConfig:
    return kubernetes_config(ApiConfig(ENVIRONMENT, settings), environment, account)


def test_a_kubeconfig_names_server_and_credentials(tmp_path: Path) -> None:
    data = base64.b64encode(PEM.encode()).decode()
    made = config(tmp_path, "certificate-authority: ca.pem, tls-server-name: api", f"client-certificate-data: {data}, "
                  f"client-key-data: {data}")  # fmt: skip
    assert (made.server, made.server_name) == (Server("10.0.0.5", 6443, True), "api")
    assert made.ca.path == str(tmp_path / "ca.pem"), "relative to the kubeconfig"
    assert made.cert.read() == PEM.encode()
    assert (made.insecure, made.group) == (False, "")
    assert "AA==" not in repr(made)


def test_the_context_may_be_chosen(tmp_path: Path) -> None:
    made = config(tmp_path, k8sCurrentContext="other")
    assert made.server == Server("fd00::5", 443, True, "/base")
    assert str(made.server) == "https://[fd00::5]:443/base"
    assert made.token.read() == "abc"
    assert "abc" not in repr(made)


def test_a_pod_finds_its_service_account_and_reads_its_token_each_time(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text(PEM)
    made = of({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert made.server == Server("fd00::1", 443, True)
    assert made.token.read() == "first"
    (tmp_path / "token").write_text("second")
    assert made.token.read() == "second"
    made.require_files()


def test_the_settings_of_calico_override_single_values(tmp_path: Path) -> None:
    made = config(
        tmp_path,
        k8sAPIEndpoint="https://api.example.org",
        k8sAPIToken="xyz",
        k8sCAFile="/ca",
        calicoAPIGroup="projectcalico.org/v3",
    )
    assert (str(made.server), made.token.read(), made.ca.path) == ("https://api.example.org:443", "xyz", "/ca")
    assert made.group == "projectcalico.org/v3"


REFUSED = [
    ({"user": "exec: {command: aws}"}, ":11:30: users[felix].user.exec: an exec plugin is a program, and the agent"),
    ({"user": "auth-provider: {name: gcp}"}, "users[felix].user.auth-provider: auth providers are not supported"),
    ({"user": "username: root, password: x"}, "users[felix].user.username: passwords are not supported"),
    ({"user": "token: abc, as: root"}, "users[felix].user.as: impersonation is not supported"),
    ({"cluster": "proxy-url: 'http://p:3128'"}, "clusters[ours].cluster.proxy-url: proxies are not supported"),
    ({"user": "client-key-data: '%'"}, "users[felix].user.client-key-data: expected PEM in base64"),
    ({"user": "client-certificate: a.pem"}, "users[felix].user.client-certificate: a client certificate needs its key"),
    ({"user": "token: [1]"}, "users[felix].user.token: expected a string, found a list"),
    ({"cluster": "insecure-skip-tls-verify: maybe"}, "expected true or false, found the string 'maybe'"),
    ({"cluster": "insecure-skip-tls-verify: true, certificate-authority: a"}, "is not to be verified"),
    ({"k8sCurrentContext": "none"}, "contexts: there is no context named 'none'"),
    ({"k8sAPIEndpoint": "ftp://a"}, "environment: K8S_API_ENDPOINT: expected https://HOST:PORT, found 'ftp://a'"),
    ({"k8sAPIEndpoint": "https://u:p@a"}, "expected https://HOST:PORT"),
    ({"k8sAPIEndpoint": "https://a:0"}, "expected https://HOST:PORT"),
    ({"k8sAPIEndpoint": "https://a:x"}, "expected https://HOST:PORT"),
    ({"k8sAPIEndpoint": "https://a/?q"}, "expected https://HOST:PORT"),
    ({"k8sAPIEndpoint": "http://a"}, "http://a:80: credentials are sent over https only"),
    ({"k8sInsecureSkipTLSVerify": "maybe"}, "K8S_INSECURE_SKIP_TLS_VERIFY: expected true or false, found 'maybe'"),
    ({"calicoAPIGroup": "v3"}, "environment: CALICO_API_GROUP: expected crd.projectcalico.org/v1 or projectcalico"),
    ({"kubeconfigInline": "{}"}, "a kubeconfig is either here or in a file, found both"),
]


@pytest.mark.parametrize(("settings", "says"), REFUSED)
def test_what_is_refused(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as error:
        config(tmp_path, **settings)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "expected one document, a kubeconfig"),
        ("{}", "current-context: missing"),
        ("current-context: a\ncontexts: [1]", ":2:12: contexts[0]: expected a mapping, found the number 1"),
        ("current-context: a\ncontexts: 1", ":2:11: contexts: expected a list, found the number 1"),
        ("current-context: a\ncontexts: [{name: a}]", "contexts[a].context: expected a mapping, found nothing"),
        ("current-context: a\ncontexts: [{name: a, context: {}}]", "contexts[a].context.cluster: missing"),
        ("current-context: {", "not YAML"),
    ],
)
def test_what_is_no_kubeconfig(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(UsageError) as error:
        of({}, kubeconfig=str(tmp_path / "config"))
    assert f"{tmp_path}/config" in str(error.value)
    assert says in str(error.value)


def test_a_file_that_is_too_large_is_told_what_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("#" * ((16 << 20) + 1))
    with pytest.raises(UsageError, match="config: larger than 16 MiB; a kubeconfig is expected"):
        of({}, kubeconfig=str(tmp_path / "config"))


def test_without_a_server_the_settings_are_named() -> None:
    with pytest.raises(UsageError, match="no Kubernetes API server: set KUBECONFIG or K8S_API_ENDPOINT"):
        of({})
    with pytest.raises(UsageError, match="KUBECONFIG: /none: cannot be read"):
        of({}, kubeconfig="/none")
    with pytest.raises(UsageError, match="K8S_CURRENT_CONTEXT: there is no kubeconfig"):
        of({}, k8sCurrentContext="a")


def test_a_token_is_one_word(tmp_path: Path) -> None:
    for text in ("", "a b", "a\nb: c"):
        (tmp_path / "token").write_text(text)
        made = config(tmp_path, user="tokenFile: token")
        with pytest.raises(UnreadableError, match=f"tokenFile: {tmp_path}/token: expected a token"):
            made.token.read()
        with pytest.raises(UsageError, match="expected a token"):
            made.require_files()

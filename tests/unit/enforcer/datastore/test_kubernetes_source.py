"""The Kubernetes API followed through each way in which it refuses, lies or is silent: what is held, and what is said.

The server is the double of tests/support/kubernetes_double.py, over real connections.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enforcer.datastore.apiconfig import ENVIRONMENT, ApiConfig
from enforcer.datastore.kubernetes import follower
from enforcer.datastore.kubernetes.config import kubernetes_config
from enforcer.datastore.kubernetes.follower import Clocks
from enforcer.datastore.kubernetes.kinds import followed as followed_kinds
from enforcer.datastore.kubernetes.source import KubernetesSource
from enforcer.datastore.report import Resync
from enforcer.datastore.updates import Changed, Contact, Listed, Lost, Resynced, Update
from tests.support.certificates import Authority
from tests.support.datastores import QUICK
from tests.support.etcd import network_set
from tests.support.kubernetes_double import V3, Answer, Api, Double, forbidden, status, too_many

DEADLINE_S = 60.0
BOTS = network_set("bots", "203.0.113.0/24")


class Followed:
    """The updates of a source, and the objects that they amount to."""

    def __init__(self, source: KubernetesSource) -> None:
        self.source = source
        self.held: dict[str, str] = {}
        self.seen: list[Update] = []
        self._stop = threading.Event()
        self._updates: queue.SimpleQueue[Update] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(source,))
        self._thread.start()

    def _run(self, source: KubernetesSource) -> None:
        for update in source.follow(self._stop):
            self._updates.put(update)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def until(self, right: Callable[[Update], object]) -> Any:
        """The next update that is right."""
        until_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                update = self._updates.get(timeout=max(0.0, until_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not seen; the last updates: {self.seen[-3:]}") from None
            self.seen.append(update)
            match update:
                case Listed(objects=objects):
                    self.held = {item.path: item.text.decode() for item in objects}
                case Changed(put=put, gone=gone):
                    self.held = {path: text for path, text in self.held.items() if path not in gone}
                    self.held |= {item.path: item.text.decode() for item in put}
            if right(update):
                return update

    def until_held(self, *names: str) -> None:
        """Until exactly these sets are held."""
        wanted = {f"globalnetworksets/{name}" for name in names}
        while {path for path in self.held if path.startswith("globalnetworksets/")} != wanted:
            self.until(lambda update: isinstance(update, (Listed, Changed)))

    def until_lost(self, says: str) -> str:
        return str(self.until(lambda update: isinstance(update, Lost) and says in update.problem).problem)

    def until_resynced(self, reason: Resync) -> None:
        """Unless it has been already."""
        if Resynced(reason) not in self.seen:
            self.until(lambda update: update == Resynced(reason))

    def until_back(self) -> None:
        self.until(lambda update: isinstance(update, Contact))


@contextmanager
def followed(double: Double, clocks: Clocks = QUICK, **settings: str) -> Iterator[Followed]:
    api = ApiConfig(ENVIRONMENT, {"k8sAPIEndpoint": double.url, **settings})
    made = Followed(KubernetesSource(kubernetes_config(api, {}), "jasper", clocks))
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def double() -> Iterator[Double]:
    with Double(Api()) as running:
        running.api.put(BOTS)
        yield running


def test_namespaces_are_profiles_and_only_the_own_node_is_followed(double: Double) -> None:
    double.api.put({"kind": "Namespace", "metadata": {"name": "shop", "labels": {"zone": "a"}}})
    for name in ("jasper", "other"):
        double.api.put({"kind": "Node", "metadata": {"name": name, "labels": {}}, "status": {"images": []}})
    with followed(double) as seen:
        seen.until(lambda update: isinstance(update, Listed))
        assert sorted(seen.held) == ["globalnetworksets/bots", "nodes/jasper", "profiles/kns.shop"]
        assert (
            '"labelsToApply":{"pcns.zone":"a","pcns.projectcalico.org/name":"shop"}' in seen.held["profiles/kns.shop"]
        )
        # A change of the status alone is none.
        double.api.put({"kind": "Node", "metadata": {"name": "jasper", "labels": {}}, "status": {"images": [1]}})
        double.api.put({"kind": "Node", "metadata": {"name": "jasper", "labels": {"rack": "7"}}})
        seen.until(lambda update: isinstance(update, Changed))
        assert '"rack":"7"' in seen.held["nodes/jasper"]


def test_the_second_group_is_read_where_the_first_is_not(double: Double) -> None:
    double.api.group = V3
    double.api.put(BOTS)
    with followed(double) as seen:
        seen.until_held("bots")
        assert '"apiVersion":"projectcalico.org/v3"' in seen.held["globalnetworksets/bots"]
        assert seen.seen.count(Resynced(Resync.START)) == len(followed_kinds("jasper")), "each kind is listed once"


def test_a_list_comes_in_pages_and_begins_again_when_its_token_has_expired(double: Double) -> None:
    names = ("bots", *(f"n{index}" for index in range(600)))
    for name in names[1:]:
        double.api.put(network_set(name, "192.0.2.1/32"))
    pages: list[str] = []

    def compact_before_the_second_page(plural: str, token: str) -> Answer | None:
        if plural == "globalnetworksets":
            if token and "next" not in pages:
                double.api.delete("globalnetworksets/n0")
                double.api.compact()
            pages.append("next" if token else "first")
        return None

    with followed(double, replace(QUICK, relist=0.0, watch=(1, 1))) as seen:
        seen.until_held(*names)
        double.api.refuse_list = compact_before_the_second_page
        seen.until_held(*(name for name in names if name != "n0"))
        expired = pages.index("next")
        assert pages[expired + 1 : expired + 3] == ["first", "next"], "it lists from the beginning"


@pytest.mark.parametrize("form", ["an event", "a status", "a cut event", "an event of no kind"])
def test_an_expired_revision_is_listed_again_in_either_form(
    double: Double, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch begins at a revision that the server has forgotten; what happened since is not lost."""
    spread: list[tuple[float, ...]] = []
    monkeypatch.setattr(follower, "relist_s", lambda *of: spread.append(of) or 0.0)
    with followed(double) as seen:
        seen.until_held("bots")
        seen.until_back()
        double.kill()
        double.api.put(network_set("others", "192.0.2.0/24"))
        double.api.delete("globalnetworksets/bots")
        if form == "an event":
            double.api.compact()
        else:
            double.api.history.clear()
            begun: set[str] = set()

            def refuse(plural: str) -> Answer | None:
                if plural in begun:
                    return None
                begun.add(plural)
                return {
                    "a status": status(410, "Expired", "too old resource version"),
                    "a cut event": (200, b'{"type": "ADD', {}),
                    "an event of no kind": (200, b'{"type": "BEGUN", "object": {"metadata": {}}}\n', {}),
                }[form]

            double.api.refuse_watch = refuse
        double.start()
        seen.until_held("others")
        seen.until_back()
        seen.until_resynced(Resync.EXPIRED if form in ("an event", "a status") else Resync.DISCONNECTED)
        size = max(size for size, *_ in spread)
        assert 100 < size < 1000, "the time depends on the size of the list before"
        assert (size, QUICK.spread, 60.0) in spread


def test_a_server_that_is_busy_is_asked_again_and_told_of_only_if_it_stays_so(double: Double) -> None:
    with followed(double) as seen:
        seen.until_held("bots")
        double.api.refuse = too_many
        with double.down():
            pass
        assert "429 Too Many Requests: Too many requests, please try again later." in seen.until_lost("429")
        double.api.refuse = lambda _plural: None
        seen.until_back()
        double.api.put(network_set("others", "192.0.2.0/24"))
        seen.until_held("bots", "others")


def test_one_kind_that_is_forbidden_stays_and_the_others_are_followed(double: Double) -> None:
    with followed(double) as seen:
        seen.until_held("bots")
        double.api.refuse = lambda plural: forbidden(plural) if plural == "tiers" else None
        with double.down():
            pass
        problem = seen.until_lost("403")
        assert problem.startswith("tiers: 403 Forbidden: tiers.crd.projectcalico.org is forbidden: User")
        double.api.put(network_set("others", "192.0.2.0/24"))
        changed = seen.until(lambda update: isinstance(update, Changed))
        assert changed.problem == problem, "the store is not said to be followed"
        seen.until_held("bots", "others")


def test_nothing_is_known_before_every_kind_was_listed(double: Double) -> None:
    double.api.refuse = lambda plural: forbidden(plural) if plural == "globalnetworkpolicies" else None
    with followed(double) as seen:
        seen.until_lost("globalnetworkpolicies: 403")
        assert not any(isinstance(update, Listed) for update in seen.seen)
        double.api.refuse = lambda _plural: None
        seen.until_held("bots")


def test_a_backup_that_was_restored_is_taken(double: Double) -> None:
    """A watch from a revision of the future is silent for ever."""
    saved, revision = deepcopy(double.api.objects), double.api.revision
    with followed(double) as seen:
        double.api.put(network_set("late", "192.0.2.0/24"))
        seen.until_held("bots", "late")
        with double.down():
            double.api.restore(saved, revision)
        seen.until_held("bots")
        double.api.put(network_set("after", "192.0.2.0/24"))
        seen.until_held("bots", "after")


def test_the_same_revision_of_a_backup_may_be_another_object(double: Double) -> None:
    saved, revision = deepcopy(double.api.objects), double.api.revision
    with followed(double) as seen:
        double.api.put(network_set("bots", "192.0.2.1/32"))
        seen.until(lambda _update: "192.0.2.1/32" in seen.held.get("globalnetworksets/bots", ""))
        with double.down():
            double.api.restore(saved, revision)
            double.api.put(network_set("bots", "192.0.2.2/32"))
        with followed(double) as other:
            other.until_held("bots")
        double.api.put(network_set("more", "192.0.2.3/32"))
    # Equal revisions cannot be told apart until everything is listed again, which happens at the next connection loss.
    with followed(double, replace(QUICK, relist=0.1, watch=(1, 1))) as seen:
        seen.until(lambda _update: "192.0.2.2/32" in seen.held.get("globalnetworksets/bots", ""))


def test_an_api_that_was_emptied_is_not_believed(double: Double) -> None:
    """Of no kind, although the threads of the kinds find it out one after the other."""
    double.api.put({"kind": "Tier", "metadata": {"name": "edge"}, "spec": {}})
    with followed(double) as seen:
        seen.until_held("bots")
        with double.down():
            double.api.restore({}, double.api.revision + 1)
            double.api.oldest = double.api.revision
        seen.until_lost("Calico has no objects here, not even clusterinformations/default")
        assert {"globalnetworksets/bots", "tiers/edge"} <= set(seen.held)
        double.api.put(network_set("others", "192.0.2.0/24"))
        seen.until_held("others")
        seen.until(lambda _update: "tiers/edge" not in seen.held)


def test_the_last_object_may_be_deleted_where_calico_is_installed(double: Double) -> None:
    double.api.put({"kind": "ClusterInformation", "metadata": {"name": "default"}})
    with followed(double) as seen:
        seen.until_held("bots")
        double.api.delete("globalnetworksets/bots")
        seen.until_held()


def test_a_kind_whose_crd_is_missing_is_empty_and_found_later(double: Double) -> None:
    double.api.absent.add("tiers")
    with followed(double) as seen:
        seen.until_held("bots")
        double.api.absent.clear()
        double.api.put({"kind": "Tier", "metadata": {"name": "edge"}, "spec": {}})
        seen.until(lambda _update: "tiers/edge" in seen.held)


def test_a_kind_that_is_not_served_any_more_keeps_its_objects(double: Double) -> None:
    with followed(double) as seen:
        seen.until_held("bots")
        double.api.absent.add("globalnetworksets")
        with double.down():
            pass
        seen.until_lost("globalnetworksets are no longer served; there were 1: was the CRD deleted?")
        assert "globalnetworksets/bots" in seen.held
        double.api.absent.clear()
        seen.until_back()


def test_another_cluster_is_not_believed(double: Double) -> None:
    with followed(double) as seen:
        seen.until_held("bots")
        seen.until_back()
        with double.down():
            double.api.uid = "aaaa"
            double.api.delete("globalnetworksets/bots")
        seen.until_lost("another cluster answers: its kube-system has the uid aaaa, and had 6f1c")
        assert "globalnetworksets/bots" in seen.held
        double.api.put(network_set("others", "192.0.2.0/24"))
        double.api.uid = "6f1c"
        seen.until_held("others")


def test_silence_is_noticed(double: Double) -> None:
    """Bookmarks stop, as when the server is stopped or the network loses everything."""
    with followed(double, replace(QUICK, first_silence=0.5, silence=0.3)) as seen:
        seen.until_held("bots")
        asked: list[str] = []
        # For mypy: append() returns None
        double.api.refuse = lambda plural: asked.append(plural)  # type: ignore[func-returns-value]
        until_s = time.monotonic() + DEADLINE_S
        while not asked:
            assert time.monotonic() < until_s, "it does not connect again"
            time.sleep(0.02)


def test_a_refresh_lists_everything_again(double: Double) -> None:
    """As after SIGHUP: also what the watch did not tell."""
    with followed(double) as seen:
        seen.until_held("bots")
        seen.until_back()
        double.api.put(network_set("bots", "192.0.2.1/32"))
        seen.until(lambda _update: "192.0.2.1/32" in seen.held["globalnetworksets/bots"])
        del double.api.objects["globalnetworksets", "", "bots"]["metadata"]["labels"]
        seen.source.refresh()
        seen.until(lambda _update: '"labels"' not in seen.held["globalnetworksets/bots"])
        seen.until_resynced(Resync.ASKED)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, b"<html>\n", {}), "the answer is not JSON"),
        ((200, b"[1]", {}), "the answer is not a JSON object"),
        ((200, b'{"metadata": {}}', {}), "the answer is not a list of Kubernetes"),
        (
            (200, b'{"metadata": {"resourceVersion": "7"}, "items": [1]}', {}),
            "the answer is not an object of Kubernetes",
        ),
        (
            (200, b'{"metadata": {"resourceVersion": "7"}, "items": [{}]}', {}),
            "the answer is not an object of Kubernetes: it has no metadata",
        ),
        ((500, b"\x1b[31mred", {}), r"500 Internal Server Error: \x1b[31mred"),
        ((404, b"404 page not found\n", {"Content-Type": "text/plain"}), "404 Not Found: 404 page not found"),
        ((302, b"", {"Location": "http://192.0.2.1/"}), "302 Found"),
    ],
)
def test_what_is_no_answer_of_kubernetes_is_not_taken_for_an_empty_list(
    double: Double, answer: Answer, says: str
) -> None:
    double.api.refuse = lambda plural: answer if plural == "globalnetworksets" else None
    with followed(double) as seen:
        seen.until_lost(f"globalnetworksets: {says}")
        assert not any(isinstance(update, Listed) for update in seen.seen)


def test_a_token_that_is_renewed_is_read_again(double: Double, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    api = Api(token="first")
    api.put(BOTS)
    (tmp_path / "token").write_text("first")
    with Double(api, serving=authority.issue("api"), clients=authority.cert) as secured:
        (tmp_path / "config").write_text(
            "current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"
            f"clusters: [{{name: a, cluster: {{server: '{secured.url}', certificate-authority: ca/ca.pem}}}}]\n"
            "users: [{name: a, user: {tokenFile: token}}]\n"
        )
        with followed(secured, k8sAPIEndpoint="", kubeconfig=str(tmp_path / "config")) as seen:
            seen.until_held("bots")
            with secured.down():
                api.token = "second"
            seen.until_lost("401 Unauthorized: Unauthorized")
            (tmp_path / "token").write_text("second")
            seen.until_back()
            assert "globalnetworksets/bots" in seen.held


@pytest.mark.slow
def test_a_client_certificate_opens_what_no_certificate_does(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    felix = authority.issue("felix")
    api = Api(token="unknown")
    api.put(BOTS)
    with Double(api, serving=authority.issue("api"), clients=authority.cert) as secured:
        with followed(secured, k8sCAFile=str(authority.cert)) as seen:
            seen.until_lost("401 Unauthorized")
        with followed(secured) as seen:
            seen.until_lost("TLS: self-signed certificate in certificate chain")
        with followed(
            secured, k8sCAFile=str(authority.cert), k8sCertFile=str(felix.cert), k8sKeyFile=str(felix.key)
        ) as seen:
            seen.until_held("bots")
        (tmp_path / "other.pem").write_text(felix.key.read_text())
        with followed(
            secured, k8sCAFile=str(authority.cert), k8sCertFile=str(tmp_path / "other.pem"), k8sKeyFile=str(felix.key)
        ) as seen:
            seen.until_lost("K8S_CERT_FILE: not a certificate with its key")

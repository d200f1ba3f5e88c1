"""The double answers as a real API server does: the same requests to both, one test for a row of docs/fleet.md."""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.api_server import DoubleApi, KubernetesApi, Server, api_server, needs_api_server
from tests.support.etcd import network_set
from tests.support.kubernetes_double import RECORDED, V1, Api, Double

SETS = f"/apis/{V1}/globalnetworksets"
DOCS = Path(__file__).parents[2] / "docs/fleet.md"


@pytest.fixture(scope="module", params=["double", pytest.param("api server", marks=needs_api_server)])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesApi]:
    if request.param == "double":
        with Double(Api(bookmark_s=0.2)) as double:
            yield filled(DoubleApi(double))
        return
    with api_server(tmp_path_factory.mktemp("server")) as server:
        yield filled(server)


def filled(api: KubernetesApi) -> KubernetesApi:
    for index in range(3):
        api.put(network_set(f"set-{index}", f"192.0.2.{index}/32"))
    return api


def get(api: KubernetesApi, path: str) -> tuple[http.client.HTTPResponse, dict[str, Any]]:
    answer = api.get(path)
    return answer, json.loads(answer.read())


def revision(api: KubernetesApi) -> int:
    return int(get(api, f"{SETS}?limit=1")[1]["metadata"]["resourceVersion"])


def watched(api: KubernetesApi, begin: int, seconds: int) -> list[dict[str, Any]]:
    answer = api.get(f"{SETS}?watch=1&allowWatchBookmarks=true&resourceVersion={begin}&timeoutSeconds={seconds}")
    assert answer.status == 200
    return [json.loads(line) for line in answer.read().splitlines()]


def test_the_documentation_has_every_row_that_the_double_follows() -> None:
    rows = re.findall(r"^\| (.+?) \|", DOCS.read_text(), re.MULTILINE)
    assert set(RECORDED.values()) <= set(rows)
    source = (Path(__file__).parents[1] / "support/kubernetes_double.py").read_text()
    for key in RECORDED:
        assert re.search(rf"[Rr]ows?:? [a-z, -]*\b{key}\b", source), f"no behaviour cites the row {key}"


def test_a_list_of_the_cache_ignores_the_limit(api: KubernetesApi) -> None:
    _, found = get(api, f"{SETS}?resourceVersion=0&limit=1")
    assert [item["metadata"]["name"] for item in found["items"]] == ["set-0", "set-1", "set-2"]
    assert not found["metadata"].get("continue")


def test_a_list_in_pages_is_of_one_revision(api: KubernetesApi) -> None:
    _, first = get(api, f"{SETS}?limit=2")
    assert [item["metadata"]["name"] for item in first["items"]] == ["set-0", "set-1"]
    _, rest = get(api, f"{SETS}?limit=2&continue={quote(first['metadata']['continue'])}")
    assert [item["metadata"]["name"] for item in rest["items"]] == ["set-2"]
    assert not rest["metadata"].get("continue")
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_continue_token_that_is_none(api: KubernetesApi) -> None:
    answer, told = get(api, f"{SETS}?limit=2&continue=nonsense")
    assert (answer.status, told["kind"], told["reason"]) == (400, "Status", "BadRequest")


def test_a_list_of_the_future(api: KubernetesApi) -> None:
    answer, told = get(api, f"{SETS}?resourceVersion={revision(api) + 1000}")
    assert (answer.status, told["code"]) == (504, 504)
    assert [cause["reason"] for cause in told["details"]["causes"]] == ["ResourceVersionTooLarge"]
    assert told["details"]["retryAfterSeconds"] == 1


def test_a_watch_of_the_past_ends_with_an_error_in_an_answer_of_200(api: KubernetesApi) -> None:
    if isinstance(api, DoubleApi):
        api.double.api.compact()
    (event,) = watched(api, 1, 5)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert event["object"]["message"].startswith("too old resource version: 1 (")


def test_a_watch_of_the_future_is_silent_until_its_end(api: KubernetesApi) -> None:
    assert watched(api, revision(api) + 1000, 2) == []


def test_a_watch_tells_changes_and_ends_without_a_message(api: KubernetesApi) -> None:
    begin = revision(api)
    api.put(network_set("set-9", "192.0.2.9/32"))
    api.put(network_set("set-9", "192.0.2.10/32"))
    api.delete("globalnetworksets/set-9")
    events = [event for event in watched(api, begin, 3) if event["type"] != "BOOKMARK"]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert begin < revisions[0] < revisions[1] < revisions[2]


def test_a_continue_token_after_compaction_comes_with_a_fresh_one(api: KubernetesApi) -> None:
    """Kubernetes' token names a revision; here it names one that is long gone."""
    _, first = get(api, f"{SETS}?limit=2")
    token = first["metadata"]["continue"]
    if isinstance(api, DoubleApi):
        api.put(network_set("set-0", "192.0.2.77/32"))
        api.double.api.compact()
    else:
        compact(api)
    answer, told = get(api, f"{SETS}?limit=2&continue={quote(token)}")
    assert (answer.status, told["reason"]) == (410, "Expired")
    assert told["metadata"]["continue"] not in ("", token)


def compact(api: KubernetesApi) -> None:
    assert isinstance(api, Server)
    api.put(network_set("set-0", "192.0.2.77/32"))
    api.cluster.ctl("compact", str(api.cluster.revision()))


def test_a_kind_without_crd_is_not_found_in_plain_text(api: KubernetesApi) -> None:
    if isinstance(api, DoubleApi):
        api.double.api.absent.add("clusterinformations")
    answer = api.get(f"/apis/{V1}/clusterinformations")
    assert (answer.status, answer.read()) == (404, b"404 page not found\n")
    assert answer.headers["Content-Type"].startswith("text/plain")
    _, kinds = get(api, f"/apis/{V1}")
    names = {item["name"] for item in kinds["resources"]}
    assert "globalnetworksets" in names
    assert "clusterinformations" not in names


def test_a_server_that_is_killed_breaks_the_answer_off(api: KubernetesApi) -> None:
    answer = api.get(f"{SETS}?watch=1&resourceVersion={revision(api)}&timeoutSeconds=60")
    with api.away(), pytest.raises(http.client.IncompleteRead):
        answer.read()


def test_a_token_of_the_double_is_one_of_its_own() -> None:
    """Nothing of it is a real server's format, so that nothing can depend on that."""
    with Double(Api()) as double:
        api = filled(DoubleApi(double))
        token = get(api, f"{SETS}?limit=1")[1]["metadata"]["continue"]
    assert base64.b64decode(token).decode().startswith("1,")


def send(api: KubernetesApi, method: str, last: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = api.request(method, "/".join(filter(None, (SETS, last))), body)
    return answer.status, json.loads(answer.read())


def one_set(name: str, *nets: str, version: str = "") -> dict[str, Any]:
    made = network_set(name, *nets) | {"apiVersion": V1}
    made["metadata"] |= {"resourceVersion": version} if version else {}
    return made


def test_a_write_of_a_version_that_its_author_has_seen(api: KubernetesApi) -> None:
    code, made = send(api, "POST", "", one_set("written", "192.0.2.1/32"))
    assert code == 201
    assert send(api, "POST", "", one_set("written", "192.0.2.1/32"))[1]["reason"] == "AlreadyExists"
    version = made["metadata"]["resourceVersion"]
    assert send(api, "PUT", "written", one_set("written", "192.0.2.2/32", version=version))[0] == 200
    code, told = send(api, "PUT", "written", one_set("written", "192.0.2.3/32", version=version))
    assert (code, told["reason"]) == (409, "Conflict")
    code, told = send(api, "DELETE", "written", {"preconditions": {"resourceVersion": version}})
    assert (code, told["reason"]) == (409, "Conflict")
    version = get(api, f"{SETS}/written")[1]["metadata"]["resourceVersion"]
    assert send(api, "DELETE", "written", {"preconditions": {"resourceVersion": version}})[0] == 200
    for method in ("PUT", "DELETE"):
        code, told = send(api, method, "written", one_set("written", version=version) if method == "PUT" else {})
        assert (code, told["reason"]) == (404, "NotFound")
    assert get(api, f"{SETS}/written")[1]["reason"] == "NotFound"

"""The state of an agent's datastore, as people read it."""

from __future__ import annotations

import json
from dataclasses import asdict

from enforcer.cli.datastore_view import datastore_lines
from enforcer.datastore.base import StoreState


def lines(**changes: object) -> list[str]:
    state = {"kind": "etcd", "where": "https://a:1", "connected": True, "since": 0.0, "contact": 90.0, "revision": "7"}
    more = {"objects": 3, "problem": "", "kept": [], "left_out": [], "faults": []}
    return list(datastore_lines(state | more | changes, 100.0))


def test_people_read_whether_it_is_followed() -> None:
    assert lines() == [
        "datastore etcd (https://a:1): followed since 1970-01-01T00:00:00Z; 3 objects, revision 7, last answer 10 s ago"
    ]
    assert lines(connected=False, problem="no answer in time") == [
        "datastore etcd (https://a:1): not followed since 1970-01-01T00:00:00Z: no answer in time",
        "  what is enforced stays: 3 objects, revision 7, last answer 10 s ago",
    ]
    assert "no answer yet" in lines(connected=False, contact=0.0)[0]


def test_people_read_the_first_faults_and_how_many_there_are() -> None:
    faults = [{"object": f"o{each}", "message": "m", "outcome": "kept", "since": 0.0} for each in range(25)]
    said = lines(faults=faults, kept=["GlobalNetworkSet bots"], left_out=[f"x{each}" for each in range(22)])
    assert said[1] == "  o0: m (since 1970-01-01T00:00:00Z; kept)"
    assert said[21] == "  and 5 more faults; -o json has all"
    assert said[22] == "  at an older version: GlobalNetworkSet bots"
    assert said[23].endswith("x19 and 2 more")


def test_the_view_reads_what_a_store_says() -> None:
    state = json.loads(json.dumps(asdict(StoreState("files", "/etc/enforcer", True, 0.0, 0.0))))
    assert next(datastore_lines(state, 0.0)).startswith("datastore files (/etc/enforcer): followed since")

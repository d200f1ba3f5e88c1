"""What an agent answers, and who may ask."""

from __future__ import annotations

import json
import logging
import socket
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from enforcer.agent.status_socket import answering, ask_agent
from enforcer.cli.datastore_view import datastore_lines
from enforcer.datastore.base import StoreState


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_an_agent_answers_while_it_runs_and_leaves_nothing(directory: Path) -> None:
    assert ask_agent(directory) is None
    with answering(lambda: {"datastore": 1}, directory):
        (path,) = directory.iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert ask_agent(directory) == ask_agent(directory) == {"datastore": 1}
    assert not list(directory.iterdir())
    assert ask_agent(directory) is None


def test_the_socket_of_a_killed_agent_is_replaced(directory: Path) -> None:
    with answering(dict, directory):
        (path,) = directory.iterdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert ask_agent(directory) is None, "nobody listens"
    with answering(lambda: {"new": True}, directory):
        assert ask_agent(directory) == {"new": True}


def test_who_asks_and_does_not_read_delays_nobody(directory: Path) -> None:
    with answering(lambda: {"long": "x" * (8 << 20)}, directory), socket.socket(socket.AF_UNIX) as rude:
        (path,) = directory.iterdir()
        rude.connect(str(path))
        rude.close()
        assert ask_agent(directory) == {"long": "x" * (8 << 20)}


def test_an_agent_without_a_directory_runs_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING), answering(dict, tmp_path / "file"):
        assert ask_agent(tmp_path / "file") is None
    assert "cannot answer 'enforcer status'" in caplog.text


def test_an_answer_that_is_none_is_no_answer(directory: Path) -> None:
    with answering(lambda: [1], directory):  # type: ignore[arg-type,return-value]
        assert ask_agent(directory) is None


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

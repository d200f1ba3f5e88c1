"""How a list gets here: from files, standard input and a real HTTPS server, and every way in which it does not."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from enforcer.feeds.config import Feed
from enforcer.feeds.fetch import Fetched, FetchError, fetch
from enforcer.feeds.guards import Limits
from enforcer.lists.parse import Shape
from tests.support.certificates import Authority
from tests.support.list_server import Answer, Publisher, publisher

LIST = b"198.51.100.0/24\n"


def feed(source: str, **more: object) -> Feed:
    return replace(Feed("x", source, Shape(), {"list": "deny"}), **more)  # type: ignore[arg-type]  # of several types


@pytest.fixture
def over_https(lists: Publisher, authority: Authority) -> Feed:
    return feed(f"{lists.url}/list", ca_file=authority.cert)


def test_a_list_and_its_validators_come_over_https(lists: Publisher, over_https: Feed) -> None:
    stamps = {"ETag": '"1"', "Last-Modified": "Tue, 19 May 2026 10:00:00 GMT"}
    lists.answers["/list"] = Answer(LIST, headers=stamps)
    assert fetch(over_https) == Fetched(LIST, stamps["ETag"], stamps["Last-Modified"])
    ((_, sent),) = lists.seen
    assert sent["user-agent"].startswith("enforcer-feed/")
    assert not {"if-none-match", "if-modified-since", "x-api-key"} & sent.keys()


def test_a_list_that_has_not_changed_is_not_sent_again(lists: Publisher, over_https: Feed) -> None:
    lists.answers["/list"] = Answer(LIST, headers={"ETag": '"1"'})
    assert fetch(over_https, etag='"1"', modified="Tue, 19 May 2026 10:00:00 GMT") is None
    assert lists.seen[0][1]["if-modified-since"] == "Tue, 19 May 2026 10:00:00 GMT"
    assert fetch(over_https, etag='"2"') == Fetched(LIST, '"1"')


def test_redirects_lead_to_https_alone(lists: Publisher, over_https: Feed) -> None:
    lists.answers["/list"] = Answer(status=302, headers={"Location": f"{lists.url}/there"})
    lists.answers["/there"] = Answer(LIST)
    assert fetch(over_https) == Fetched(LIST)
    lists.answers["/list"] = Answer(status=302, headers={"Location": "http://127.0.0.1:9/there"})
    with pytest.raises(FetchError, match=r"redirects to 'http://127.0.0.1:9/there', which is not https"):
        fetch(over_https)
    lists.answers["/list"] = Answer(status=302, headers={"Location": f"{lists.url}/list"})
    with pytest.raises(FetchError, match="HTTP 302"):
        fetch(over_https)


def test_a_certificate_is_verified(lists: Publisher, over_https: Feed, authority: Authority) -> None:
    lists.answers["/list"] = Answer(LIST)
    with pytest.raises(FetchError, match="certificate is not trusted: "):
        fetch(replace(over_https, ca_file=None))
    expired = authority.issue("expired", since="20200101000000Z", until="20200102000000Z")
    with publisher(expired) as other:
        other.answers["/list"] = Answer(LIST)
        with pytest.raises(FetchError, match="certificate is not trusted: certificate has expired"):
            fetch(feed(f"{other.url}/list", ca_file=authority.cert))
    assert not lists.seen


def test_a_name_that_the_certificate_does_not_have_is_not_trusted(lists: Publisher, over_https: Feed) -> None:
    with pytest.raises(FetchError, match="certificate is not trusted: "):
        fetch(replace(over_https, source=over_https.source.replace("127.0.0.1", "localhost")))


WRONG: list[tuple[str, Answer, str]] = [
    ("not there", Answer(status=404), "HTTP 404 Not Found"),
    ("too often", Answer(status=429), "HTTP 429"),
    ("a fault of the server", Answer(status=500), "HTTP 500"),
    ("cut off", Answer(LIST, length=1000), "the answer is cut off"),
    (
        "cut off within a chunk",
        Answer(b"400\r\n198.51.", headers={"Transfer-Encoding": "chunked"}, length=-1),
        "cut off",
    ),
    ("cut off between chunks", Answer(b"2\r\n1.\r\n", headers={"Transfer-Encoding": "chunked"}, length=-1), "cut off"),
    ("compressed", Answer(LIST, headers={"Content-Encoding": "gzip"}), "encoded as gzip"),
    ("larger than allowed, as it says", Answer(LIST, length=10_000), "larger than 1,000 bytes; limits.bytes"),
    ("larger than allowed, without a word", Answer(LIST * 1000, length=-1), "larger than 1,000 bytes"),
]


@pytest.mark.parametrize(("answer", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_not_received_as_a_whole_is_an_error(
    lists: Publisher, over_https: Feed, answer: Answer, message: str
) -> None:
    lists.answers["/list"] = answer
    with pytest.raises(FetchError) as error:
        fetch(replace(over_https, limits=Limits(bytes=1000)))
    assert message in str(error.value)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FetchError, match="refused"):
        fetch(feed("https://127.0.0.1:1/list"))


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"nowhere\.pem: cannot be read as certificates"):
        fetch(feed("https://127.0.0.1:1/list", ca_file=tmp_path / "nowhere.pem"))


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(LIST)
    assert fetch(feed(str(path))) == Fetched(LIST)
    with pytest.raises(FetchError, match="larger than"):
        fetch(feed(str(path), limits=Limits(bytes=3)))


def _absent(path: Path) -> None: ...


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_absent, "No such file"),
        (Path.mkdir, "not a regular file but a directory"),
        (os.mkfifo, "not a regular file but a FIFO"),
    ],
)
def test_a_file_that_is_none_is_an_error(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "list")
    with pytest.raises(FetchError, match=message):
        fetch(feed(str(tmp_path / "list")))


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(LIST)))
    assert fetch(feed("-")) == Fetched(LIST)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(LIST)))
    with pytest.raises(FetchError, match="larger than 3 bytes"):
        fetch(feed("-", limits=Limits(bytes=3)))


def test_crowdsec_gets_its_key_and_keeps_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("abc\n")
    with publisher() as local:
        bouncer = feed(f"{local.url}/", shape=None, key_file=key)
        local.answers["/v1/decisions/stream?startup=true"] = Answer(b"{}")
        local.answers["/v1/decisions/stream?startup=false"] = Answer(status=403)
        assert fetch(bouncer) == Fetched(b"{}")
        assert local.seen[0][1]["x-api-key"] == "abc"
        with pytest.raises(FetchError, match=r"HTTP 403 .*is the API key that of a bouncer"):
            fetch(bouncer, startup=False)
        elsewhere = Answer(status=302, headers={"Location": f"{local.url}/x"})
        local.answers["/v1/decisions/stream?startup=true"] = elsewhere
        with pytest.raises(FetchError, match=r"redirects to .* with the API key"):
            fetch(bouncer)
        assert "/x" not in local.paths()
        key.write_text("")
        with pytest.raises(FetchError, match="holds no API key"):
            fetch(bouncer)

"""feeds.yaml: what it means, and one sentence for each fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.feeds.config import Feed, load_config, parse_config
from enforcer.feeds.guards import Limits
from enforcer.lists.parse import Format, Shape
from enforcer.model.errors import PolicyError

FULL = """
protected: [198.51.100.0/24, 2001:db8::1]
feeds:
- name: spamhaus-drop
  source: https://lists.example/drop_v4.json?token=secret
  format: ndjson
  labels: {list: deny}
  licence: free to use, with attribution
  every: 12h
  caFile: /etc/ssl/own.pem
  limits: {bytes: 1000, badShare: 0.5, cidrs: 10, ipv4Share: 0.25, change: 2, widestIPv4: 16, widestIPv6: 32}
- name: own
  source: /srv/own.csv
  format: csv
  column: address
  delimiter: ";"
  labels: {list: deny}
  keepPrivate: true
- name: bouncer
  source: http://127.0.0.1:8080
  format: crowdsec
  keyFile: /etc/key
  labels: {list: deny}
  every: 30s
- {name: piped, source: "-", labels: {list: deny}}
"""


def test_every_setting_is_read() -> None:
    found = parse_config(FULL, "feeds.yaml")
    assert found.protected == ((4, 0xC6336400, 24), (6, 0x20010DB8 << 96 | 1, 128))
    drop, own, bouncer, piped = found.feeds
    assert drop == Feed(
        "spamhaus-drop",
        "https://lists.example/drop_v4.json?token=secret",
        Shape(Format.NDJSON),
        {"list": "deny"},
        "free to use, with attribution",
        43200.0,
        ca_file=Path("/etc/ssl/own.pem"),
        limits=Limits(1000, 0.5, 10, 0.25, 2.0, 16, 32),
    )
    assert drop.shown_source == "https://lists.example/drop_v4.json"
    assert (own.shape, own.keep_private) == (Shape(Format.CSV, column="address", delimiter=";"), True)
    assert (bouncer.shape, bouncer.key_file, bouncer.every_s) == (None, Path("/etc/key"), 30.0)
    assert bouncer.limits == Limits(change=0.0)
    assert piped == Feed("piped", "-", Shape(), {"list": "deny"})
    assert piped.shown_source == "standard input"


def one(**settings: str) -> str:
    fields = {"name": "x", "source": "x.txt", "labels": "{a: b}"} | settings
    return "feeds:\n- {" + ", ".join(f"{key}: {value}" for key, value in fields.items() if value) + "}\n"


FAULTS = [
    ("", "expected one document with feeds:, found 0"),
    ("feeds: []\n", "expected at least one feed"),
    ("feed: []\n", "unknown field; did you mean 'feeds'?"),
    ("feeds: [\n", "not YAML"),
    (one(name=""), "name: this field is required and absent"),
    (one(name="Bad_Name"), "'Bad_Name' is not valid"),
    (one(name="x" * 41), "at most 40 are allowed"),
    (one(source=""), "source: this field is required and absent"),
    (one(source="http://lists.example/x"), "expected https, found http"),
    (one(source="ftp://lists.example/x"), "expected https, found ftp"),
    (one(source="https:///x"), "not a URL"),
    (one(source="https://me:secret@lists.example/x"), "a URL with a user name"),
    (one(labels=""), "labels: this field is required and absent"),
    (one(labels="{}"), "expected at least one label"),
    (one(labels="{enforcer.io/feed: z}"), "are the enforcer's own"),
    (one(format="xml"), "expected lines or ndjson or ipset or csv or crowdsec, found"),
    (one(format="csv"), "format: csv needs the column"),
    (one(column="1"), "column: only for format: csv, and this feed has lines"),
    (one(format="csv", column="1", delimiter='";;"'), "expected one character"),
    (one(every="30m", source="https://lists.example/x"), "expected at least 1h"),
    (one(keyFile="/etc/key"), "only for format: crowdsec"),
    (one(format="crowdsec", source="http://127.0.0.1:8080"), "needs the file that has the API key"),
    (one(format="crowdsec", keyFile="/k", source="http://192.0.2.1:8080"), "expected https, found http"),
    (one(format="crowdsec", keyFile="/k", source="x.txt"), "expected the URL of a CrowdSec Local API"),
    (one(limits="{cidrs: 0}"), "0 is outside 1..10000000"),
    (one(limits="{badShare: 2}"), "2 is outside 0..1"),
    (one(limits="{cidr: 1}"), "unknown field; did you mean 'cidrs'?"),
    (one() + one()[7:], "two feeds are named 'x'"),
    (one(source='"-"') + one(name="z", source='"-"')[7:], "two feeds are read from standard input"),
    ("protected: [x]\n" + one(), "protected[0]"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_fault_has_a_position_and_one_sentence(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_config(text, "feeds.yaml")
    assert len(error.value.findings) == 1
    assert message in str(error.value)
    assert str(error.value).startswith("feeds.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "nowhere.yaml")

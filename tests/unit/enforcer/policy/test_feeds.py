"""Address lists among the policy files: recognised, reported by name, and not a fault."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from enforcer.lists.recognise import FEED, recognised
from enforcer.model.errors import PolicyError
from enforcer.policy.load import load, load_text
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import load_tolerant
from tests.unit.enforcer.policy.documents import document

SET = document("GlobalNetworkSet", "{nets: [203.0.113.0/24]}", "{name: listed}")

# case, text, reported name, first entry, its line
FEEDS: list[tuple[str, str, str, str, int]] = [
    ("DROP text", "; A list 2026/05/20\n; Expires: never\n198.51.100.0/25 ; X1\n203.0.113.0/24 ; X2\n; EOF\n",
     "a list of addresses", "198.51.100.0/25", 3),
    ("DROP of IPv6", "; A list\n2001:db8:1::/48 ; X1\n", "a list of addresses", "2001:db8:1::/48", 2),
    ("DROP line by line",
     '{"cidr":"198.51.100.0/25","id":"X1"}\n{"cidr":"203.0.113.0/24","id":"X2"}\n{"type":"metadata","records":2}\n',
     "a list of addresses in JSON", "198.51.100.0/25", 1),
    ("netset", "#\n# some_level\n#\n198.51.100.0/25\n203.0.113.7\n", "a list of addresses", "198.51.100.0/25", 4),
    ("ipset save", "create bad hash:net family inet hashsize 1024 maxelem 65536\nadd bad 198.51.100.0/25\n",
     "an ipset as 'ipset save' prints it", "198.51.100.0/25", 1),
    ("an empty ipset", "create bad hash:net family inet\n", "an ipset as 'ipset save' prints it", "...", 1),
    ("ranges", "198.51.100.1-198.51.100.4\n203.0.113.0 - 203.0.113.255\n", "a list of addresses",
     "198.51.100.1/32, 198.51.100.2/31, 198.51.100.4/32", 1),
    ("masks", "198.51.100.7/255.255.255.0\n", "a list of addresses", "198.51.100.0/24", 1),
    ("PeerGuardian", "bad people:198.51.100.0-198.51.100.255\n", "a list of addresses", "198.51.100.0/24", 1),
    ("columns", "198.51.100.0\t198.51.100.255\t24\t900\n", "a list of addresses", "198.51.100.0/32", 1),
    ("a table with names", "seen,address,port\n2026-01-01,198.51.100.7,443\n", "a list of addresses",
     "198.51.100.7/32", 1),
    ("a table of tabs with names", "Start\tEnd\tNetmask\n198.51.100.0\t198.51.100.255\t24\n", "a list of addresses",
     "198.51.100.0/32", 1),
    ("a table of semicolons", "ip;country\n198.51.100.7;XX\n", "a list of addresses", "198.51.100.7/32", 1),
    ("addresses and ports", "198.51.100.7:443\n[2001:db8::7]:443\n", "a list of addresses", "198.51.100.7/32", 1),
    ("a line of another kind", "Listed today\n198.51.100.7\n203.0.113.7\n", "a list of addresses",
     "198.51.100.7/32", 1),
    ("items of YAML", "- 198.51.100.0/25\n- '203.0.113.7'\n", "a list of addresses", "198.51.100.0/25", 1),
    ("a list of JSON", '["198.51.100.0/25", "203.0.113.7"]', "a list of addresses in JSON", "198.51.100.0/25", 1),
    ("a cloud's JSON", json.dumps({"token": "1", "prefixes": [{"region": "x", "net": "198.51.100.0/25"}]}, indent=1),
     "a list of addresses in JSON", "198.51.100.0/25", 1),
    ("an nft set", "table inet x {\n set bad {\n type ipv4_addr\n elements = { 198.51.100.7,\n 203.0.113.7 }\n }\n}\n",
     "an nftables set", "198.51.100.7/32", 1),
    ("a long one", "198.51.100.0/25\n" * 20_000, "a list of addresses", "198.51.100.0/25", 1),
]  # fmt: skip


# How those are imported that can be as they are.
IMPORTED = {
    "DROP text": "format: lines", "DROP of IPv6": "format: lines", "netset": "format: lines",
    "DROP line by line": "format: ndjson", "ipset save": "format: ipset", "ranges": "format: lines",
    "masks": "format: lines", "a line of another kind": "format: csv, column: 1",
    "a table with names": "format: csv, column: 2",
    "a table of semicolons": "format: csv, column: 1, delimiter: \";\"", "a long one": "format: lines",
}  # fmt: skip


@pytest.mark.parametrize(("case", "text", "what", "first", "line"), FEEDS, ids=[row[0] for row in FEEDS])
def test_a_feed_is_named_and_is_no_fault(case: str, text: str, what: str, first: str, line: int) -> None:
    found = load_text(text, "feed")
    (note,) = found.notes
    assert (note.kind, note.position.line) == (FEED, line)
    assert note.message.startswith(f"{what}, not a Calico resource: it enforces nothing; to have it enforced, ")
    if settings := IMPORTED.get(case):
        assert "'enforcer feed sync -f feeds.yaml'" in note.message
        assert f"feeds: [{{name: NAME, source: FILE, {settings}, labels: {{KEY: VALUE}}}}]" in note.message
    else:
        assert "write its CIDRs into a resource that a rule selects: " in note.message
        assert f"spec: {{nets: [{first}, ...]}}" in note.message
    assert found == Resources()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# what we take\nfeeds:\n- {name: x, source: x.txt, labels: {a: b}}\n",
         "a list of feeds for 'enforcer feed sync', not a Calico resource: it enforces nothing"),
        ("; A list\n; EOF\n", "an empty list of addresses, not a Calico resource: it enforces nothing"),
        ("# names\n127.0.0.1 localhost\n::1 localhost\n0.0.0.0 bad.example\n",
         "a hosts file, a list of names, not a Calico resource: it enforces nothing"),
    ],
)  # fmt: skip
def test_a_feed_without_addresses_gives_none_as_example(text: str, message: str) -> None:
    (note,) = load_text(text, "feed").notes
    assert note.message == message


NO_FEEDS = [
    '{"apiversion": "projectcalico.org/v3", "nets": ["198.51.100.0/25"]}',
    '{"kind": "GlobalNetworkSet", "metadata": {"name": "x"}, "spec": {"nets": ["198.51.100.0/25"]}}',
    '[{"metadata": {"name": "x"}, "spec": {"nets": ["198.51.100.0/25"]}}]',
    "nets:\n- 198.51.100.0/25\n- 203.0.113.7\n- 203.0.113.8\n", "x: y\n198.51.100.7\n198.51.100.8\n",
    "", "# only a comment\n", "hello\n", "1.5\n", "42\n", "a: 198.51.100.0/25\n", "nets:\n- 198.51.100.0/25\n", "[]",
    "{}", '{"a": "b"}', "198.51.100.0/25\nhello\n", "198.51.100.0/33\n", SET, SET + "---\n198.51.100.0/25\n",
    json.dumps({"apiVersion": "projectcalico.org/v3", "kind": "Nonsense", "spec": {"nets": ["198.51.100.0/25"]}}),
    "table of contents\n1.2.3.4\n", "[" * 100_000, '{"a":' * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", NO_FEEDS, ids=range(len(NO_FEEDS)))
def test_anything_else_is_none(text: str) -> None:
    assert recognised(text) is None


@pytest.mark.parametrize("name", ["drop.txt", "drop.json", "drop.yaml", "level.netset", "bad.ipset", "README"])
def test_a_feed_makes_no_directory_faulty(tmp_path: Path, name: str) -> None:
    (tmp_path / "set.yaml").write_text(SET)
    (tmp_path / name).write_text(FEEDS[2][1] if name.endswith("json") else FEEDS[3][1])
    found = load([tmp_path])
    assert [note.position.path for note in found.notes] == [str(tmp_path / name)]
    assert [item.name for item in found.global_network_sets] == ["listed"]
    loaded = load_tolerant([tmp_path], Resources())
    assert not loaded.faults
    assert loaded.resources.notes == found.notes


def test_a_directory_of_feeds_alone_is_no_policy(tmp_path: Path) -> None:
    (tmp_path / "drop.txt").write_text(FEEDS[0][1])
    with pytest.raises(PolicyError, match=r"no file here ends in .*drop\.txt is a list of addresses.*enforces nothing"):
        load([tmp_path])


def test_what_is_no_regular_file_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text(SET)
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "binary.txt").write_bytes(b"198.51.100.0/25\n\0")
    assert not load([tmp_path]).notes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_list_among_the_resources_is_named_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "set.yaml").write_text(SET)
    (tmp_path / "drop.txt").write_bytes("198.51.100.0/25\n203.0.113.0/24\n".encode(encoding))
    (note,) = load([tmp_path]).notes
    assert "format: lines" in note.message


def test_resources_overwritten_with_a_feed_stay_as_they_last_were(tmp_path: Path) -> None:
    path = tmp_path / "set.yaml"
    path.write_text(SET)
    before = load_tolerant([tmp_path], Resources()).resources
    path.write_text(FEEDS[0][1])
    loaded = load_tolerant([tmp_path], before)
    assert loaded.resources == before
    (fault,) = loaded.faults
    assert "it enforces nothing" in fault.finding.message
    assert fault.outcome == "of its last version these stay: GlobalNetworkSet listed"

"""Recognises address lists that operators put beside their policy, to explain that they enforce nothing.

They are recognised by their lines, whatever the file's name: CIDRs and addresses (FireHOL netset, Spamhaus DROP),
ranges, addresses with masks, ``ipset save``, nft sets, tables with a column of addresses, and JSON without apiVersion
(one document per line as from Spamhaus DROP, or one document as from cloud providers). Those that
:mod:`enforcer.lists.parse` reads can be imported as they are: the sentence says how.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace

from enforcer.lists.entry import networks_of, written
from enforcer.lists.parse import Format, Shape, parse, without_comment

FEED = "feed"  # the kind of the note
PEEK = 64 * 1024  # bytes read of a file with another suffix
_LINES = 200  # examined to recognise a list
_COMMENT = re.compile(r"\s*(?:[#;].*|//.*)?$")
# What a resource contains, even if it is misspelt or lacks its first lines: that is a fault, not a list.
_RESOURCE = re.compile(
    r"apiVersion|[\"']?api_?version[\"']?\s*:|[\"'](?:kind|spec|metadata)[\"']\s*:\s*[\"'{]", re.IGNORECASE
)
_IPSET = re.compile(r"(?:create|add|-N|-A)\s+\S+\s+(\S+)")
_QUOTED = re.compile(r'"([0-9a-fA-F.:/-]{2,64})"')
_FEEDS = re.compile(r"^feeds:(?=\s)", re.MULTILINE)  # enforcer.feeds.config
_YAML = re.compile(r":(\s|$)|^- ")
_PORT = re.compile(r"\[?(.*?)\]?:[0-9]{1,5}")  # after an address: 198.51.100.7:443, [2001:db8::7]:443
_COLUMNS = 6  # that are looked at
_DELIMITERS = {",": ",", ";": ";", "\t": "\\t", "|": "|"}  # and how they are written in YAML
_NFT = re.compile(r"(?:#!.*nft|(?:add |create )?(?:table|set|element|flush)\b.*)")


@dataclass(frozen=True)
class Feed:
    """``what`` it is; ``first``: its first entry as CIDRs, "" if it has none; ``line``: of that entry, from 1;
    ``shape``: how it can be imported, None if it cannot be as it is.
    """

    what: str
    first: str
    line: int
    shape: Shape | None = None

    @property
    def sentence(self) -> str:
        if not self.first:
            return f"{self.what}, not a Calico resource: it enforces nothing"
        if self.shape is not None:
            return (
                f"{self.what}, not a Calico resource: it enforces nothing; to have it enforced, import it with "
                f"'enforcer feed sync -f feeds.yaml', where feeds.yaml is: feeds: [{{name: NAME, source: FILE, "
                f"{_settings(self.shape)}, labels: {{KEY: VALUE}}}}], with labels that a rule selects"
            )
        return (
            f"{self.what}, not a Calico resource: it enforces nothing; to have it enforced, write its CIDRs into a "
            "resource that a rule selects: {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: "
            f"{{name: NAME, labels: {{KEY: VALUE}}}}, spec: {{nets: [{self.first}, ...]}}}}"
        )


def _settings(shape: Shape) -> str:
    column = f", column: {shape.column}" if shape.format is Format.CSV else ""
    delimiter = f', delimiter: "{_DELIMITERS[shape.delimiter]}"' if shape.delimiter != "," else ""
    return f"format: {shape.format}{column}{delimiter}"


def recognised(text: str) -> Feed | None:
    """The feed in a text; None for anything else, including what looks like a resource."""
    found = _recognised(text)
    return found and replace(found, shape=shape_of(text) if found.first else None)


def shape_of(text: str) -> Shape | None:
    """The format in which each of the first lines of the text is an entry; None if there is none."""
    some = text[:PEEK].splitlines(keepends=True)
    sample = "".join((some[:-1] if len(text) > PEEK else some)[:_LINES])
    for shape in _shapes():
        found = parse(sample, shape)
        if found.good and not found.bad and not found.problem:
            return None if shape.format is Format.CSV and _is_range_of_columns(sample, shape) else shape
    return None


def _shapes() -> Iterator[Shape]:
    yield Shape(Format.LINES)
    yield Shape(Format.NDJSON)
    yield Shape(Format.IPSET)
    for delimiter, column in itertools.product(_DELIMITERS, range(1, _COLUMNS + 1)):
        yield Shape(Format.CSV, column=column, delimiter=delimiter)


def _is_range_of_columns(sample: str, shape: Shape) -> bool:
    """Whether another column has addresses too: the first and the last of a range, probably."""
    assert isinstance(shape.column, int)
    others = (replace(shape, column=column) for column in range(1, _COLUMNS + 1) if column != shape.column)
    return any(parse(sample, other).good for other in others)


def _recognised(text: str) -> Feed | None:
    if len(text) < PEEK and text.startswith(";") and all(_COMMENT.match(line) for line in text[:PEEK].splitlines()):
        return Feed("an empty list of addresses", "", 1)
    if "apiVersion" in text or _RESOURCE.search(text[:PEEK]):
        return None
    if found := _FEEDS.search(text[:PEEK]):
        return Feed("a list of feeds for 'enforcer feed sync'", "", text.count("\n", 0, found.start()) + 1)
    lines = [(at, line.strip()) for at, line in enumerate(text[:PEEK].splitlines(), 1) if not _COMMENT.match(line)]
    if len(text) > PEEK:
        lines = lines[:-1]  # the last line is cut off
    if not lines:
        return None
    at, first = lines[0]
    some = [line for _, line in lines[:_LINES]]
    if first[0] in "{[" and (cidrs := _of_json(text, some)):
        return Feed("a list of addresses in JSON", cidrs, at)
    if any(_IPSET.match(line) for line in some) and all(_IPSET.match(line) for line in some):
        added = [found[1] for line in some if line.startswith(("add", "-A")) and (found := _IPSET.match(line))]
        return Feed("an ipset as 'ipset save' prints it", next(filter(None, map(cidrs_of, added)), "..."), at)
    if _NFT.match(first) and "elements" in text[:PEEK]:
        entries = re.split(r"[\s,{}]+", text[:PEEK].partition("elements")[2])
        return Feed("an nftables set", next(filter(None, map(cidrs_of, entries)), "..."), at)
    return _of_lines(lines[0], some)


def _of_lines(first: tuple[int, str], some: list[str]) -> Feed | None:
    """A list: most lines have an address, or all lines if one looks like YAML. Column names before them are allowed.

    A file of resources that lacks its first lines must remain a fault.
    """
    at, line = first
    if not _entry(line) and any(mark in line and mark in "".join(some[1:2]) for mark in ",;\t|"):
        some = some[1:]
    entries = list(filter(None, map(_entry, some)))
    missing = len(some) - len(entries)
    if not entries or (missing and (2 * missing >= len(some) or any(map(_YAML.search, some)))):
        return None
    if all(map(_is_nobody, entries)) and any(len(item.split()) > 1 for item in some):
        return Feed("a hosts file, a list of names", "", at)
    return Feed("a list of addresses", entries[0], at)


def _is_nobody(entry: str) -> bool:
    """Whether an entry is an address that hosts files use to block a name."""
    address = ipaddress.ip_interface(entry.partition(",")[0]).ip
    return address.is_loopback or address.is_unspecified


def _entry(line: str) -> str:
    """The CIDRs of the address in a line: alone, as a list item, after a name, or in a column. "" if there is none."""
    bare = without_comment(line).removeprefix("- ").strip().replace(" - ", "-")
    if found := cidrs_of(bare.strip("\"',")):
        return found
    if (port := _PORT.fullmatch(bare)) and (found := cidrs_of(port[1])):
        return found
    if ": " in bare or bare.endswith(":"):
        return ""  # YAML
    columns = [column.strip().strip("\"'") for column in re.split(r"[,\t|]|\s+", bare)]
    named = bare.rpartition(":")[2] if "-" in bare.rpartition(":")[2] else ""  # PeerGuardian: name:first-last
    return next(filter(None, map(cidrs_of, [*columns[:6], named])), "")


def cidrs_of(text: str) -> str:
    """An address, CIDR, range or address with mask as CIDRs, the first few; "" for anything else."""
    try:
        return ", ".join(map(written, networks_of(text)[:3]))
    except ValueError:
        return ""


def _of_json(text: str, lines: list[str]) -> str:
    """The first address in JSON: one document, or one per line."""
    try:
        documents = [json.loads(text)]
    except (ValueError, RecursionError):
        try:
            documents = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            documents = _QUOTED.findall(text[:PEEK]) if len(text) > PEEK else []  # only the beginning was read
    return next(filter(None, map(cidrs_of, _strings(documents))), "")


def _strings(tree: object, depth: int = 0) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (list, dict)) and depth < 20:
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from _strings(item, depth + 1)


def peek(path: str) -> Feed | None:
    """The feed in a file beside the resources. Reads only regular files, and only their beginning."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        head = os.read(handle, PEEK + 4)
    except OSError:
        return None
    finally:
        os.close(handle)
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = head.decode(encoding, errors="ignore")
    return None if "\0" in text else recognised(text)

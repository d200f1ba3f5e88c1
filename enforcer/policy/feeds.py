"""Recognises address lists that operators put beside their policy, to explain that they enforce nothing.

They are recognised by their lines, whatever the file's name: CIDRs and addresses (FireHOL netset, Spamhaus DROP),
ranges, addresses with masks, ``ipset save``, nft sets, tables with a column of addresses, and JSON without apiVersion
(one document per line as from Spamhaus DROP, or one document as from cloud providers).
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from enforcer.model.nets import parse_cidr

FEED = "feed"  # the kind of the note
PEEK = 64 * 1024  # bytes read of a file with another suffix
_LINES = 200  # examined to recognise a list
_COMMENT = re.compile(r"\s*(?:[#;].*|//.*)?$")
_BEHIND = re.compile(r"\s*(?:[#;]|//).*$")
# What a resource contains, even if it is misspelt or lacks its first lines: that is a fault, not a list.
_RESOURCE = re.compile(
    r"apiVersion|[\"']?api_?version[\"']?\s*:|[\"'](?:kind|spec|metadata)[\"']\s*:\s*[\"'{]", re.IGNORECASE
)
_IPSET = re.compile(r"(?:create|add|-N|-A)\s+\S+\s+(\S+)")
_QUOTED = re.compile(r'"([0-9a-fA-F.:/-]{2,64})"')
_YAML = re.compile(r":(\s|$)|^- ")
_PORT = re.compile(r"\[?(.*?)\]?:[0-9]{1,5}")  # after an address: 198.51.100.7:443, [2001:db8::7]:443
_NFT = re.compile(r"(?:#!.*nft|(?:add |create )?(?:table|set|element|flush)\b.*)")


@dataclass(frozen=True)
class Feed:
    """``what`` it is; ``first``: its first entry as CIDRs, "" if it has none; ``line``: of that entry, from 1."""

    what: str
    first: str
    line: int

    @property
    def sentence(self) -> str:
        if not self.first:
            return f"{self.what}, not a Calico resource: it enforces nothing"
        return (
            f"{self.what}, not a Calico resource: it enforces nothing; to have it enforced, write its CIDRs into a "
            "resource that a rule selects: {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: "
            f"{{name: NAME, labels: {{KEY: VALUE}}}}, spec: {{nets: [{self.first}, ...]}}}}"
        )


def recognised(text: str) -> Feed | None:
    """The feed in a text; None for anything else, including what looks like a resource."""
    if len(text) < PEEK and text.startswith(";") and all(_COMMENT.match(line) for line in text[:PEEK].splitlines()):
        return Feed("an empty list of addresses", "", 1)
    if "apiVersion" in text or _RESOURCE.search(text[:PEEK]):
        return None
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
    bare = _BEHIND.sub("", line).removeprefix("- ").strip().replace(" - ", "-")
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
        first, dash, last = text.partition("-")
        if dash:
            ends = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
            nets = ipaddress.summarize_address_range(*ends)
            return ", ".join(str(net) for net, _ in zip(nets, range(3), strict=False))
        if re.fullmatch(r"[0-9.]+/[0-9]+\.[0-9.]+", text):
            return str(ipaddress.ip_network(text, strict=False))
        if "." not in text and text.count(":") < 2:
            return ""  # a number is not an address
        version, value, length = parse_cidr(text)
        return str((ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network)((value, length)))
    except (ValueError, TypeError):
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

"""feeds.yaml: which lists are fetched, how they are read, and what their sets are labelled with. docs/feeds.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from enforcer.feeds.guards import Limits
from enforcer.lists.entry import Network
from enforcer.lists.parse import Format, Shape
from enforcer.model.errors import Finding, PolicyError, Position
from enforcer.policy import values
from enforcer.policy.nodes import DocumentFault, Scalar, from_text
from enforcer.policy.reading import (
    Cursor,
    Fields,
    Reader,
    Refused,
    Report,
    attempt,
    boolean,
    integer,
    list_of,
    number,
    one_of,
    string,
)
from enforcer.policy.schema import OWN_PREFIX
from enforcer.system import files

STDIN = "-"
CROWDSEC = "crowdsec"
HOUR_S = 3600.0
_CROWDSEC_S = 10.0  # as often as CrowdSec's own bouncers ask

_TOP = ("feeds", "protected")
_FEED = (
    *("name", "source", "format", "column", "delimiter", "key", "set", "labels", "licence"),
    *("every", "keyFile", "caFile", "keepPrivate", "limits"),
)
_LIMITS = ("bytes", "badShare", "cidrs", "ipv4Share", "change", "widestIPv4", "widestIPv6")
_NAME_MAX = 40  # characters: a set's name has a prefix and up to 32 digits more
_LICENCE_MAX = 500
_CONFIG_MAX_BYTES = 1 << 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Feed:
    """One list. ``source``: a path, ``-`` or a URL. ``shape``: None for a CrowdSec Local API. ``every_s``: the least
    time between two fetches of a URL.
    """

    name: str
    source: str
    shape: Shape | None
    labels: Mapping[str, str]
    licence: str = ""
    every_s: float = HOUR_S
    key_file: Path | None = None
    ca_file: Path | None = None
    keep_private: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def is_url(self) -> bool:
        return "://" in self.source

    @property
    def shown_source(self) -> str:
        """Without what may be secret: the user and the query of a URL."""
        if not self.is_url:
            return "standard input" if self.source == STDIN else self.source
        parts = urlsplit(self.source)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True)
class FeedsConfig:
    """``protected``: networks that no feed may deny."""

    feeds: Sequence[Feed]
    protected: Sequence[Network] = ()


def load_config(path: Path) -> FeedsConfig:
    """Raises PolicyError with every fault of the file."""
    try:
        text = files.read_text(
            str(path), limit_bytes=_CONFIG_MAX_BYTES, instead="feeds.yaml names lists, it does not contain them"
        )
    except files.UnreadableError as error:
        raise PolicyError([Finding(Position(str(path)), "", str(error))]) from error
    found = parse_config(text, str(path))
    return replace(found, feeds=[_below(item, path.parent) for item in found.feeds])


def _below(feed: Feed, folder: Path) -> Feed:
    """With paths that are relative to the file that has them."""
    source = feed.source if feed.is_url or feed.source == STDIN else str(folder / feed.source)
    keys = {name: folder / path for name in ("key_file", "ca_file") if (path := getattr(feed, name)) is not None}
    return replace(feed, source=source, **keys)


def parse_config(text: str, path: str) -> FeedsConfig:
    """Raises PolicyError."""
    report = Report(path)
    found = FeedsConfig(())
    try:
        documents = list(from_text(text))
        if len(documents) != 1:
            raise DocumentFault(f"expected one document with feeds:, found {len(documents)}")
        found = attempt(_config, Cursor(report, documents[0]), found)
    except DocumentFault as fault:
        report.add(Position(path, fault.line, fault.column), "", fault.message)
    if report.findings:
        raise PolicyError(sorted(report.findings, key=lambda finding: finding.position))
    return found


def _config(at: Cursor) -> FeedsConfig:
    top = Fields(at, _TOP)
    feeds = top.get("feeds", list_of(_feed), ())
    if not feeds and not at.report.findings:
        raise Refused(top.cursor("feeds"), "expected at least one feed")
    seen: set[str] = set()
    for item in feeds:
        if item.name and item.name in seen:
            top.cursor("feeds").fault(f"two feeds are named {item.name!r}")
        seen.add(item.name)
    if sum(item.source == STDIN for item in feeds) > 1:
        top.cursor("feeds").fault("two feeds are read from standard input")
    return FeedsConfig(feeds, top.get("protected", list_of(_network), ()))


def _feed(at: Cursor) -> Feed:
    have = Fields(at, _FEED)
    kind = have.get("format", one_of(*(str(item) for item in Format), CROWDSEC), str(Format.LINES))
    is_crowdsec = kind == CROWDSEC
    source = have.need("source", _source(is_crowdsec), "")
    least_s = _CROWDSEC_S if is_crowdsec else HOUR_S
    if "keyFile" in have and not is_crowdsec:
        have.cursor("keyFile").fault("only for format: crowdsec")
    if is_crowdsec and "keyFile" not in have:
        have.cursor("keyFile").fault("format: crowdsec needs the file that has the API key of a bouncer")
    for name, wanted in (("column", "csv"), ("delimiter", "csv"), ("key", "ndjson"), ("set", "ipset")):
        if name in have and kind != wanted:
            have.cursor(name).fault(f"only for format: {wanted}, and this feed has {kind}")
    if kind == Format.CSV and "column" not in have:
        have.cursor("column").fault("format: csv needs the column of the addresses: its number from 1, or its name")
    found = have.need("labels", _labels, {})
    return Feed(
        name=have.need("name", values.name(values.DNS_LABEL, _NAME_MAX), ""),
        source=source,
        shape=None if is_crowdsec else _shape(have, Format(kind)),
        labels=found,
        licence=have.get("licence", _short(_LICENCE_MAX), ""),
        every_s=have.get("every", _every(least_s), least_s),
        key_file=_path(have, "keyFile"),
        ca_file=_path(have, "caFile"),
        keep_private=have.get("keepPrivate", boolean, False),
        limits=have.get("limits", _limits(is_crowdsec), _defaults(is_crowdsec)),
    )


def _shape(have: Fields, kind: Format) -> Shape:
    plain = Shape(kind)
    return Shape(
        kind,
        column=have.get("column", _column, plain.column),
        delimiter=have.get("delimiter", _delimiter, plain.delimiter),
        key=have.get("key", string, plain.key),
        set=have.get("set", string, plain.set),
    )


def _source(is_crowdsec: bool) -> Reader[str]:
    def read(at: Cursor) -> str:
        text = string(at)
        if is_crowdsec and not text.startswith(("http://", "https://")):
            raise Refused(
                at, f"expected the URL of a CrowdSec Local API, such as http://127.0.0.1:8080, found {text!r}"
            )
        if "://" not in text:
            if not text:
                raise Refused(at, "expected a path, - or an https URL, found nothing")
            return text
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise Refused(at, f"not a URL: {error}") from error
        if not host or any(character <= " " for character in text):
            raise Refused(at, f"not a URL: {text!r}")
        if parts.username is not None:
            raise Refused(at, "a URL with a user name: it would be written into logs")
        if parts.scheme == "https" or (parts.scheme == "http" and is_crowdsec and host in _LOOPBACK):
            return text
        raise Refused(at, f"expected https, found {parts.scheme}: anybody on the path could change what is denied")

    return read


def _labels(at: Cursor) -> dict[str, str]:
    found = values.labels(at)
    if not found:
        raise Refused(at, "expected at least one label, by which a policy selects the sets")
    for key in found:
        if key.startswith(OWN_PREFIX):
            raise Refused(at.down(key), f"labels that begin with {OWN_PREFIX} are the enforcer's own")
    return found


def _every(least_s: float) -> Reader[float]:
    def read(at: Cursor) -> float:
        seconds = values.duration_s(at)
        if seconds < least_s:
            raise Refused(at, f"expected at least {'1h, which publishers ask for' if least_s == HOUR_S else '10s'}")
        return seconds

    return read


def _column(at: Cursor) -> int | str:
    if isinstance(at.node, Scalar) and isinstance(at.node.value, str) and at.node.value:
        return at.node.value
    return integer(1, 1000)(at)


def _delimiter(at: Cursor) -> str:
    text = string(at)
    if len(text) != 1 or text in '"\r\n\0 ':
        raise Refused(at, f"expected one character, such as ';', found {text!r}")
    return text


def _short(most: int) -> Reader[str]:
    def read(at: Cursor) -> str:
        text = string(at)
        if len(text) > most:
            raise Refused(at, f"{len(text)} characters; at most {most} are allowed")
        return text

    return read


def _path(have: Fields, name: str) -> Path | None:
    text = have.get(name, string, "")
    return Path(text) if text else None


def _network(at: Cursor) -> Network:
    net = values.lenient_net(at)
    return net.version, int(net.network_address), net.prefixlen


def _defaults(is_crowdsec: bool) -> Limits:
    """Decisions come and go, and each says so itself: their number may change by any share."""
    return Limits(change=0.0) if is_crowdsec else Limits()


def _limits(is_crowdsec: bool) -> Reader[Limits]:
    def read(at: Cursor) -> Limits:
        have, plain = Fields(at, _LIMITS), _defaults(is_crowdsec)
        return Limits(
            bytes=have.get("bytes", integer(1, 1 << 30), plain.bytes),
            bad_share=have.get("badShare", _share(0, 1), plain.bad_share),
            cidrs=have.get("cidrs", integer(1, 10_000_000), plain.cidrs),
            ipv4_share=have.get("ipv4Share", _share(0, 1), plain.ipv4_share),
            change=have.get("change", _share(0, 1000), plain.change),
            widest4=have.get("widestIPv4", integer(1, 32), plain.widest4),
            widest6=have.get("widestIPv6", integer(1, 128), plain.widest6),
        )

    return read


def _share(first: float, last: float) -> Reader[float]:
    def read(at: Cursor) -> float:
        value = number(at)
        if not first <= value <= last:
            raise Refused(at, f"{value:g} is outside {first:g}..{last:g}")
        return value

    return read

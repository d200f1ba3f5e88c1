"""The fields of Calico's FelixConfigurationSpec by name and schema, and the most likely meaning of an unknown name.

The list is generated from Calico's own definition (``tools/felix_fields.py``) and states its version. A file of a
cluster is never refused for a field that does not matter here, even of a newer Calico; and a misspelt field
(``xdpEnabeld``) is never silently ignored.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

# Not with importlib.resources: importing it takes longer than everything else in this module.
_DATA = json.loads(Path(__file__).with_name("felix_fields.json").read_text(encoding="utf-8"))
CALICO: str = _DATA["calico"]
SCHEMAS: dict[str, dict[str, Any]] = _DATA["fields"]
TYPES: dict[str, str] = {name: schema["type"] for name, schema in SCHEMAS.items()}

# Fields that earlier releases had.
EARLIER = ("bpfKubeProxyEndpointSlicesEnabled", "iptablesLockFilePath", "iptablesLockTimeout")
KNOWN = frozenset({*TYPES, *EARLIER})

# Prefixes of fields that only Calico Enterprise has.
_ENTERPRISE = re.compile(
    r"(capture|dns(Cache|ExtraTTL|Logs|Packets|Policy|Trusted)|dropActionOverride|egress(Gateway|IP)|externalNetwork|"
    r"flowLogs(Dynamic|Enable|File|Max|NetworkSet)|ipsec|kubeMasqueradeBit|l7Logs|nfNetlinkBufSize|prometheusReporter|"
    r"statsDump|syslogReporter|tproxy|waf|windows(DNS|FlowLogs|Network|StatsDump))"
)

_SLIPS = 2  # letters left out, added, swapped or changed
_NEAR = 0.85  # difflib's ratio for names that matter here


def is_enterprise(name: str) -> bool:
    return name not in KNOWN and _ENTERPRISE.match(name) is not None


def misspelt(name: str, mattering: Collection[str]) -> str:
    """The known field that an unknown name misspells, "" if none. ``mattering`` fields are preferred.

    A known name with a suffix (``wireguardMTUV6``) or of the other backend (``nftablesMarkMask``) is not a misspelling,
    because Calico names its fields this way.
    """
    folded = {known.lower(): known for known in KNOWN}
    plain = re.sub(r"[_.-]", "", name.lower()).removeprefix("felix")  # FELIX_XDPENABLED, as Felix's environment has it
    if plain in folded:
        return folded[plain]
    if name.endswith(("V4", "V6")) and name[:-2] in KNOWN:
        return ""
    near = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.8)
    for known in (folded[item] for item in near):
        if slips_between(name.lower(), known.lower()) <= _SLIPS and not _is_own(name, known):
            return known
    matter = {known.lower(): known for known in mattering if not _is_own(name, known)}
    close = difflib.get_close_matches(name.lower(), matter, n=1, cutoff=_NEAR)
    return matter[close[0]] if close else _of_the_same_words(name, mattering)


def _of_the_same_words(name: str, mattering: Collection[str]) -> str:
    """The field with the words of a name in another order, or with additional generic words: ``failsafeInbound``."""
    words = _words(name)
    for known in sorted(mattering):
        ours = _words(known)
        telling = ours - _FILLING
        if words == ours or (len(telling) > 1 and words - _FILLING == telling):
            return known
    return ""


_FILLING = frozenset({"enable", "host", "interval", "port", "sec"})


def _words(name: str) -> frozenset[str]:
    """The words of a name in lower case. ``enabled`` and ``disabled`` count as one word, a plural as its singular."""
    words = {word.lower().rstrip("s") for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)}
    return frozenset("enable" if word in ("enabled", "disable", "disabled") else word for word in words)


def _is_own(name: str, known: str) -> bool:
    """Whether a name differs from a known one in the way in which names of different fields differ."""
    longer, shorter = (name, known) if name.startswith(known) else (known, name)
    if longer.startswith(shorter) and re.match(r"[A-Z]\w", longer[len(shorter) :]):
        return longer is name or longer.endswith("V6")
    return any(name.replace(one, other, 1) == known for one, other in _FAMILIES)


_PAIRS = (("iptables", "nftables"), ("ipv4", "ipv6"), ("Inbound", "Outbound"))
_FAMILIES = (*_PAIRS, *((other, one) for one, other in _PAIRS))


def slips_between(one: str, other: str) -> int:
    """The optimal string alignment distance: letters to leave out, add, change, or swap with the next."""
    rows = [list(range(len(other) + 1))]
    for at, letter in enumerate(one, 1):
        row = [at]
        for column, against in enumerate(other, 1):
            best = min(rows[-1][column] + 1, row[-1] + 1, rows[-1][column - 1] + (letter != against))
            if at > 1 and column > 1 and letter == other[column - 2] and one[at - 2] == against:
                best = min(best, rows[-2][column - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]

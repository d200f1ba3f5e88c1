"""The packages of other kernels come from this host's mirror, verified with the keys of this host's sources list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kernels import packages
from tests.kernels.packages import Source, own_source

ROOT = Path(__file__).parents[3]


def target(address: str, entry: str = "", origin: str = "Debian") -> str:
    return f"MetaKey: main/binary-amd64/Packages\nOrigin: {origin}\nRepo-URI: {address}\nSourcesentry: {entry}\n"


def test_it_is_the_mirror_that_apt_uses(tmp_path: Path) -> None:
    foreign = target("https://tools.example/apt/", origin="Somebody")
    mine = target("http://mirror.internal/pub/linux/debian/", f"{tmp_path}/none.list:1")
    assert own_source(f"{foreign}\n{mine}").above == "http://mirror.internal/pub/linux"
    security = target("http://mirror.internal/debian-security")
    assert own_source(security).above == "http://mirror.internal"


@pytest.mark.parametrize(
    ("name", "text", "number", "key"),
    [
        pytest.param(
            "a.sources",
            "# ours\nTypes: deb\nURIs: http://x\n\nTypes: deb\nURIs: http://y\nSigned-By: /etc/keys/internal.gpg\n",
            2,
            "/etc/keys/internal.gpg",
            id="deb822",
        ),
        pytest.param(
            "a.list",
            "# ours\ndeb [arch=amd64 signed-by=/etc/keys/b.asc] http://x y main\n",
            2,
            "/etc/keys/b.asc",
            id="list",
        ),
        pytest.param("b.list", "deb http://x y main\n", 1, "", id="nothing said: what apt trusts"),
    ],
)
def test_it_is_signed_by_whom_the_hosts_list_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, number: int, key: str
) -> None:
    monkeypatch.setattr(packages, "_KEYRING", str(tmp_path / "none.gpg"))
    (tmp_path / name).write_text(text)
    assert own_source(target("http://x/debian/", f"{tmp_path / name}:{number}")) == Source("http://x", key)


def test_a_host_without_debians_lists_is_told() -> None:
    with pytest.raises(SystemExit, match="run apt-get update on a Debian"):
        own_source(target("https://tools.example/apt/", origin="Somebody"))


def test_no_host_is_named_in_the_code() -> None:
    for file in (ROOT / "tests/kernels").glob("*.py"):
        assert not re.search(r"https?://|urllib", file.read_text()), file

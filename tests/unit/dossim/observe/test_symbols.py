"""Names of code addresses, from what kallsyms shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dossim.observe import symbols
from enforcer.model.errors import UnsupportedKernelError

SHOWN = """\
ffffffff81000000 T first
ffffffff81000040 d data
ffffffff9000abcd t of_a_module\t[nf_conntrack]
ffffffff81000020 W weak
ffffffff81000020 t same_address
"""


@pytest.fixture
def kallsyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "kallsyms"
    path.write_text(SHOWN)
    monkeypatch.setattr(symbols, "KALLSYMS", path)
    symbols._functions.cache_clear()
    yield path
    symbols._functions.cache_clear()


@pytest.mark.usefixtures("kallsyms")
@pytest.mark.parametrize(
    ("address", "name"),
    [
        pytest.param(0xFFFFFFFF81000000, "first", id="the first address of a function"),
        pytest.param(0xFFFFFFFF8100001F, "first", id="the last address of a function"),
        pytest.param(0xFFFFFFFF80FFFFFF, "0xffffffff80ffffff", id="an address before all functions"),
        pytest.param(0xFFFFFFFF81000020, "same_address", id="of two names the one that is shown last"),
        pytest.param(0xFFFFFFFF81000040, "same_address", id="data is no function"),
        pytest.param(0xFFFFFFFF9000ABCD, "of_a_module", id="a function of a module"),
        pytest.param(2**64 - 1, "of_a_module", id="the highest address"),
    ],
)
def test_an_address_lies_in_a_function(address: int, name: str) -> None:
    assert symbols.resolve([address]) == {address: name}


def test_hidden_addresses_are_an_error(kallsyms: Path) -> None:
    kallsyms.write_text("0000000000000000 T first\n0000000000000000 t second\n")
    with pytest.raises(UnsupportedKernelError, match="kptr_restrict"):
        symbols.resolve([1])


def test_a_kernel_that_shows_nothing_is_an_error(kallsyms: Path) -> None:
    kallsyms.write_text("")
    with pytest.raises(UnsupportedKernelError, match="is empty"):
        symbols.resolve([1])

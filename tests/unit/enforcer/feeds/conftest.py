"""Publishers of lists on loopback, with a certificate of a test's own authority."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.certificates import Authority
from tests.support.list_server import Publisher, publisher


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "ca")


@pytest.fixture
def lists(authority: Authority) -> Iterator[Publisher]:
    with publisher(authority.issue("lists")) as made:
        yield made

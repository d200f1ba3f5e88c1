"""The messages of etcd's API are written once: rpc_pb2.py is the output of tools/etcd_stubs.py for rpc.proto."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("etcd_stubs", ROOT / "tools" / "etcd_stubs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_what_the_file_says(tool: ModuleType) -> None:
    assert tool.WRITTEN.read_text() == tool.module(tool.PROTO), "run '.venv/bin/python tools/etcd_stubs.py'"


def test_a_file_that_is_none_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "odd.proto").write_text('syntax = "proto3"; message Odd { nothing x = 1; }')
    with pytest.raises(SystemExit, match='"nothing" is not defined'):
        tool.module(tmp_path / "odd.proto", tmp_path)

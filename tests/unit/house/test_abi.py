"""What C and Python share is written once: the Python modules are the output of tools/abi.py for the headers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dossim.observe import abi as journey
from enforcer.model import abi

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("abi_tool", ROOT / "tools" / "abi.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", ["enforcer/model/abi.py", "dossim/observe/abi.py"])
def test_it_is_what_the_headers_say(tool: ModuleType, path: str) -> None:
    assert (ROOT / path).read_text() == tool.module(tool.WRITTEN[path]), "run 'python3 tools/abi.py'"


def test_every_header_is_read_by_one_of_them(tool: ModuleType) -> None:
    shared = {name for names in tool.WRITTEN.values() for name in names}
    assert {path.name for path in (ROOT / "bpf/include").glob("*.h")} - shared == {
        *("wire.h", "parse.h", "device.h", "toolchain.h"),  # only in C
    }


@pytest.mark.parametrize("module", [abi, journey])
def test_structures_are_as_large_as_their_fields(module: ModuleType) -> None:
    structures = {name: fields for name, fields in vars(module).items() if isinstance(fields, list)}
    assert structures
    for name, fields in structures.items():
        assert np.dtype(fields).itemsize == np.dtype(fields, align=True).itemsize == getattr(module, f"{name}_BYTES")


def test_a_structure_with_padding_is_refused(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.h").write_text("#include <linux/types.h>\nstruct odd {\n\t__u8 one;\n\t__u32 four;\n};\n")
    monkeypatch.setattr(tool, "INCLUDE", tmp_path)
    with pytest.raises(SystemExit, match="struct odd has padding that it does not name"):
        tool.module(("odd.h",))

#!/usr/bin/env python3
"""Write enforcer/datastore/etcd/rpc_pb2.py from rpc.proto beside it, with the protoc of grpcio-tools.

The result is committed, so that a host needs no compiler; tests/unit/house/test_etcd_stubs.py compares it with the
file. What protoc writes runs with the protobuf of its own release or a newer one, so grpcio-tools is pinned, and the
extra 'etcd' asks for that protobuf.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PROTO = ROOT / "enforcer" / "datastore" / "etcd" / "rpc.proto"
WRITTEN = PROTO.with_name("rpc_pb2.py")


def module(proto: Path, root: Path = ROOT) -> str:
    """The Python module for the messages of a file. Raises SystemExit with what protoc says.

    protobuf knows the file by its path below ``root``: etcd's own has the name rpc.proto too.
    """
    with TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={root}", f"--python_out={folder}"]
        done = subprocess.run([*words, str(proto)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{proto}: protoc refuses it:\n{done.stderr}")
        return next(Path(folder).rglob("*_pb2.py")).read_text()


def main() -> None:
    WRITTEN.write_text(module(PROTO))
    print(f"wrote {WRITTEN.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()

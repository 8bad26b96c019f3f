"""Generates gpu_balancer/v1 from proto/, or checks that what is checked in is exactly that.

python tests/house/generated_code.py            writes
python tests/house/generated_code.py --check    compares, and fails with the names of stale files
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROTO = REPOSITORY / "proto"
GENERATED = Path("gpu_balancer/v1")


def generate(target: Path) -> None:
    """Writes the Python modules of every .proto file under `target`."""
    names = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    services = [name for name in names if name.endswith("_service.proto")]
    tools = Path(sys.executable).parent
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTO)]
    messages = [f"--python_out={target}", f"--mypy_out={target}", f"--plugin=protoc-gen-mypy={tools}/protoc-gen-mypy"]
    stubs = [
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out={target}",
        f"--plugin=protoc-gen-mypy_grpc={tools}/protoc-gen-mypy_grpc",
    ]
    subprocess.run([*protoc, *messages, *names], check=True, capture_output=True)
    subprocess.run([*protoc, *stubs, *services], check=True, capture_output=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Reads every generated file, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if "_pb2" in path.name and path.is_file()}


def main() -> int:
    """Returns 0 when the checked-in code is current, or was written."""
    if "--check" not in sys.argv[1:]:
        generate(REPOSITORY)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, stored = contents(Path(scratch) / GENERATED), contents(REPOSITORY / GENERATED)
    stale = sorted(name for name in fresh.keys() | stored.keys() if fresh.get(name) != stored.get(name))
    if stale:
        print(f"Stale generated code: {', '.join(stale)}. Run make proto.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

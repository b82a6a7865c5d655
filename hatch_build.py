"""Generates nodedev/v1/*_pb2* from protos/ before a wheel or an editable install is built.

`python hatch_build.py` does the same in a checkout, after an edit of a proto.
"""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def generate(root: Path) -> None:
    """Runs protoc over every proto below ROOT/protos, output beside the package's own modules."""
    from grpc_tools import protoc  # noqa: PLC0415  only the build environment has it

    # The plugins stand beside the interpreter, whether or not its environment is activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = [f"--{kind}_out={root}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    protos = sorted(str(path) for path in (root / "protos").rglob("*.proto"))
    includes = [f"-I{root / 'protos'}", f"-I{files('grpc_tools') / '_proto'}"]
    if protoc.main(["protoc", *includes, *outputs, *protos]):
        sys.exit("protoc failed")
    (root / "nodedev" / "v1" / "__init__.py").write_text('"""Generated from protos/nodedev/v1."""\n')


class ProtoBuildHook(BuildHookInterface[Any]):
    """Hatchling's hook: the stubs are a build product, protos/ is the truth."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Generates the stubs in the source tree, from where hatchling packs them."""
        generate(Path(self.root))


if __name__ == "__main__":
    generate(Path(__file__).parent)

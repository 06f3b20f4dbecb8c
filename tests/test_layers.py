"""Imports go one way: export -> calibration -> runtime; and what a device runs stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RANK = {"runtime": 0, "calibration": 1, "export": 2}
FORBIDDEN_IN_RUNTIME = {"torch", "transformers", "onnx", "onnx_ir", "safetensors"}


def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


@pytest.mark.parametrize("folder", RANK)
def test_no_folder_imports_one_above_it(folder: str) -> None:
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] == "edge_medgemma" and RANK.get("".join(parts[1:2]), -1) > RANK[folder]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if folder == "runtime" and parts[0] in FORBIDDEN_IN_RUNTIME:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from edge_medgemma.runtime.cli import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'pydicom', 'onnxruntime', 'torch', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "triage" in done.stdout

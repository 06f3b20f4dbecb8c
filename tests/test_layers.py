"""Imports go one way: export -> calibration -> runtime; and what a device runs stays light."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RANK = {"runtime": 0, "calibration": 1, "export": 2}
FORBIDDEN_IN_RUNTIME = {"torch", "transformers", "onnx", "onnx_ir"}


def _imports(path: Path, *, with_members: bool = False) -> list[str]:
    """Modules that a file imports; `with_members` also what it takes from them, as dotted names."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
            if with_members:
                names += [f"{node.module}.{alias.name}" for alias in node.names]
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


def _module_imports() -> dict[str, set[str]]:
    """Module of the product -> modules of the product that it imports, dotted from the repository's root."""
    names = {}
    for folder in RANK:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names[".".join(parts).removesuffix(".__init__")] = path
    return {
        module: {
            name.removeprefix("edge_medgemma.")
            for name in _imports(path, with_members=True)
            if name.removeprefix("edge_medgemma.") in names
        }
        - {module}
        for module, path in names.items()
    }


def _edges_between_siblings(imports: dict[str, set[str]]) -> dict[str, dict[str, set[str]]]:
    """Package -> its child -> the children of the same package that it imports from."""
    edges: dict[str, dict[str, set[str]]] = {}
    for module, imported in imports.items():
        for other in imported:
            ours, theirs = module.split("."), other.split(".")
            for depth, (child, other_child) in enumerate(zip(ours, theirs, strict=False)):
                if child != other_child:
                    level = edges.setdefault(".".join(ours[:depth]), {})
                    level.setdefault(child, set()).add(other_child)
                    break
    return edges


def test_children_of_every_package_import_each_other_one_way() -> None:
    """No cycle between two modules or two folders, in either direction, at any level."""
    cycles = []
    for package, children in _edges_between_siblings(_module_imports()).items():
        try:
            TopologicalSorter(children).prepare()
        except CycleError as error:
            cycles.append(f"{package or 'top level'}: {' -> '.join(error.args[1])}")
    assert not cycles


def test_one_module_knows_the_places_on_disk() -> None:
    paths = [path for folder in RANK for path in (ROOT / folder).rglob("*.py")]
    named = [path.relative_to(ROOT) for path in paths if "platformdirs" in _imports(path)]
    assert named == [Path("runtime/store/places.py")]


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

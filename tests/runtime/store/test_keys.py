import shutil
from pathlib import Path

from edge_medgemma.runtime.store import keys
from edge_medgemma.runtime.store.keys import hashed_key, program_identity


def test_no_two_lists_of_parts_have_the_same_key() -> None:
    assert len({hashed_key("ab", "c"), hashed_key("a", "bc"), hashed_key("abc")}) == 3


def test_any_source_or_kernel_of_the_program_changes_its_identity(tmp_path, monkeypatch) -> None:
    runtime = Path(keys.__file__).parents[1]
    copy = Path(shutil.copytree(runtime / "store", tmp_path / "runtime" / "store")).parent

    def identity() -> str:
        program_identity.cache_clear()
        return program_identity()

    monkeypatch.setattr(keys, "__file__", str(copy / "store" / "keys.py"))
    try:
        found = {identity()}
        for name in ("store/places.py", "kernels/kernel.so", "kernels/kernel.c"):
            (copy / name).parent.mkdir(exist_ok=True)
            with (copy / name).open("ab") as file:
                file.write(b"\n")
            found.add(identity())
        assert len(found) == 4
        (copy / "store" / "__pycache__" / "a.py").parent.mkdir(exist_ok=True)
        (copy / "store" / "__pycache__" / "a.py").write_text("")
        assert identity() in found
    finally:
        program_identity.cache_clear()

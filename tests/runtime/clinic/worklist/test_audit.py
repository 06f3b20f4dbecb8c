"""The audit: whole lines in a chain, by whatever process."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from support.small_disk import small_disk

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.errors import ResourceError, WorklistError

KEY = "ab" * 16


def _append_many(folder: Path, who: str) -> None:
    for number in range(25):
        audit.append(StateFolder(folder), "viewed", who, KEY, str(number))


def test_lines_of_several_processes_make_one_chain(state: StateFolder) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        list(pool.map(_append_many, [state.path] * 3, ["a", "b", "c"]))
    assert audit.verify(state) == 75
    entries = list(audit.read(state))
    assert [one.detail for one in entries if one.who == "b"] == [str(i) for i in range(25)]
    assert state.audit_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["alter", "take out", "put in", "swap", "reformat"])
def test_a_line_that_was_touched_is_named(state: StateFolder, damage: str) -> None:
    for number in range(6):
        audit.append(state, "viewed", "nurse", KEY, str(number))
    lines = state.audit_file.read_bytes().splitlines(keepends=True)
    if damage == "alter":
        lines[3] = lines[3].replace(b"nurse", b"Nurse")
    elif damage == "take out":
        del lines[3]
    elif damage == "put in":
        lines.insert(3, lines[2])
    elif damage == "swap":
        lines[3], lines[4] = lines[4], lines[3]
    else:
        lines[3] = json.dumps(json.loads(lines[3])).encode() + b"\n"
    state.audit_file.write_bytes(b"".join(lines))
    named = 5 if damage == "alter" else 4
    with pytest.raises(WorklistError, match=f"line {named} of"):
        audit.verify(state)
    assert len(list(audit.read(state))) == named - 1


def test_a_torn_line_is_dropped_and_the_chain_goes_on(state: StateFolder) -> None:
    for number in range(3):
        audit.append(state, "viewed", "nurse", KEY, str(number))
    whole = state.audit_file.read_bytes()
    for cut in range(1, len(whole.splitlines()[2]) + 1):
        state.audit_file.write_bytes(whole[:-cut])
        with pytest.raises(WorklistError, match="line 3 of"):
            audit.verify(state)
        audit.append(state, "viewed", "nurse", KEY, "again")
        assert [one.detail for one in audit.read(state)] == ["0", "1", "again"]


def test_a_full_disk_is_said(state: StateFolder) -> None:
    audit.append(state, "viewed", "nurse")
    with small_disk(300), pytest.raises(ResourceError, match=r"could not write '.*audit.jsonl'"):
        for _ in range(5):
            audit.append(state, "viewed", "nurse")
    audit.append(state, "viewed", "nurse")
    assert audit.verify(state) >= 2

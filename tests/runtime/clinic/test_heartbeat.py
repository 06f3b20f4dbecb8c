from pathlib import Path

from edge_medgemma.runtime.clinic import clock, heartbeat
from edge_medgemma.runtime.clinic.heartbeat import beat, forget_beat, seconds_since_beat
from edge_medgemma.runtime.clinic.state_folder import StateFolder


def test_a_beat_is_of_one_process_and_of_this_start_of_the_machine(tmp_path, monkeypatch) -> None:
    state = StateFolder(tmp_path)
    beat(state, "node")
    assert seconds_since_beat(state, "worker") is None
    monkeypatch.setattr(heartbeat, "boot_s", lambda: clock.boot_s() + 100)
    silent_s = seconds_since_beat(state, "node")
    assert silent_s is not None and silent_s > 99
    monkeypatch.setattr(heartbeat, "boot_s", lambda: 5.0)  # the machine was started again
    assert seconds_since_beat(state, "node") is None
    beat(state, "node")
    forget_beat(state, "node")
    assert seconds_since_beat(state, "node") is None


def test_a_file_cut_short_and_a_folder_that_is_gone_are_no_beat(tmp_path) -> None:
    state = StateFolder(tmp_path)
    (tmp_path / "page.beat").write_text("")
    assert seconds_since_beat(state, "page") is None
    beat(StateFolder(Path("/nowhere")), "page")

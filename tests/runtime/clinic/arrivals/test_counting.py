"""Which study an archive is asked about, and what its answer does to a doubt."""

from dataclasses import replace
from pathlib import Path

from pydicom import dcmread
from support.clinic_node import CT_IMAGE, QUIET, association, clinic_node
from support.clinic_peers import DicomAddress, needs, running_orthanc
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.clinic.arrivals.counting import Agenda
from edge_medgemma.runtime.clinic.worklist.entry import new_entry
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyState

ROW = replace(new_entry("a" * 32, "1.2", 1, "2026-11-28T12:00:00+00:00").row, revision=1)
OTHER = replace(ROW, key="b" * 32)


def test_a_study_is_asked_about_when_quiet_and_then_each_minute_until_given_up() -> None:
    agenda = Agenda(quiet_s=5, give_up_s=600)
    asked = [now for now in range(1000) if agenda.due((ROW,), now) is not None]
    assert asked == list(range(5, 661, 60))


def test_more_images_begin_it_anew() -> None:
    agenda = Agenda(quiet_s=5, give_up_s=600)
    assert agenda.due((ROW,), 0) is None
    assert agenda.due((ROW,), 5) == ROW
    more = replace(ROW, revision=2)
    assert agenda.due((more,), 6) is None
    assert agenda.due((more,), 11) == more


def test_one_that_was_never_asked_about_goes_first() -> None:
    agenda = Agenda(quiet_s=0, give_up_s=600)
    assert agenda.due((ROW,), 1) == ROW
    assert agenda.due((ROW, OTHER), 62) == OTHER
    assert agenda.due((ROW, OTHER), 62) == ROW
    assert agenda.due((ROW, OTHER), 62) is None


def test_what_was_finished_before_the_start_is_left_alone() -> None:
    agenda = Agenda(quiet_s=0, give_up_s=600)
    done = replace(OTHER, state=StudyState.DONE)
    asked = [row for now in range(100) if (row := agenda.due((ROW, done), now)) is not None]
    assert set(asked) == {ROW}
    more = replace(done, revision=2)
    assert agenda.due((ROW, more), 100) == more


@needs("Orthanc")
def test_an_archive_that_has_more_is_believed_until_all_is_here(tmp_path: Path) -> None:
    files = sorted(write_head_ct(tmp_path / "ct", slices=12, study="70").iterdir())
    with running_orthanc(tmp_path / "orthanc") as archive:
        archive.upload(*files)
        peer = (
            f'[[peers]]\nname = "pacs"\nae_title = "{archive.address.ae_title}"\n'
            f'host = "127.0.0.1"\nport = {archive.address.port}\nquery = true\n'
        )
        with clinic_node(tmp_path / "node", QUIET, peer) as node:
            archive.add_modality(DicomAddress(node.address.ae_title, node.address.port))
            with association(node, "CT", CT_IMAGE) as opened:
                for file in files[:-1]:
                    assert opened.send_c_store(dcmread(file)).Status == 0
            row = node.settled("1.2.3.70", lambda row: Doubt.FEWER_THAN_ARCHIVE in row.doubts)
            assert (row.expected_instances, row.instances) == (12, 11)
            assert Doubt.FEWER_THAN_ARCHIVE in row.doubts
            with association(node, "CT", CT_IMAGE) as opened:
                assert opened.send_c_store(dcmread(files[-1])).Status == 0
            row = node.settled("1.2.3.70", lambda row: not row.doubts)
            assert (row.instances, row.doubts) == (12, ())

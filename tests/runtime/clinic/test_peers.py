"""The tests' own Orthanc and dcmtk work: else every check that stands on them would prove nothing."""

import subprocess
from pathlib import Path

import pytest
from support.clinic_peers import (
    DicomAddress,
    dcmsend,
    echoscu,
    findscu,
    free_port,
    needs,
    running_orthanc,
    storescu,
)
from support.synthetic_series import write_head_ct

INSTALLER = Path(__file__).resolve().parents[2] / "support" / "install_peers.sh"


@needs("Orthanc", "storescu", "findscu", "dcmsend", "echoscu")
def test_orthanc_takes_answers_and_refuses(tmp_path: Path):
    scan = write_head_ct(tmp_path / "scan", slices=3, study="81")
    with running_orthanc(tmp_path / "orthanc", check_called_ae_title=True) as orthanc:
        assert storescu(orthanc.address, scan).returncode == 0
        assert dcmsend(orthanc.address, scan).returncode == 0
        assert orthanc.instance_count("1.2.3.81") == 3
        found = findscu(
            orthanc.address, "StudyInstanceUID=1.2.3.81", "NumberOfStudyRelatedInstances"
        )
        assert "[3" in found.stdout + found.stderr
        wrong = DicomAddress("WRONG", orthanc.address.port)
        assert echoscu(orthanc.address)
        assert not echoscu(wrong)
        orthanc.add_modality(DicomAddress("NOBODY", free_port()))
        assert not orthanc.echo()
    assert orthanc.process.poll() is not None


@pytest.mark.parametrize(
    ("programs", "says"),
    [
        ({}, "no apt-get here"),
        (
            {"apt-get": "exit 0", "id": "echo 1000"},
            "not root, nothing installed; missing: chromium",
        ),
        ({"apt-get": "echo 'E: no network' >&2; exit 100", "id": "echo 0"}, "(E: no network)"),
    ],
)
def test_the_installer_of_peers_never_fails(tmp_path: Path, programs: dict[str, str], says: str):
    for name, line in {"dpkg-query": "exit 1", **programs}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("grep", "tail", "mktemp", "rm", "timeout", "chmod"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run(
        ["/bin/bash", str(INSTALLER)],
        check=False,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert says in done.stdout

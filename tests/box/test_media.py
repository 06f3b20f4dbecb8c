"""A stick is mounted for the service alone, by a script that is the unit's own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "box" / "media.sh"
SCAN = Path(__file__).resolve().parents[1] / "data" / "ct_head"


def media(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, **environment}, umask=0o077,  # that of the unit
    )  # fmt: skip


@pytest.fixture
def recorder(tmp_path: Path) -> dict[str, str]:
    """An environment in which `mount` and what needs root only write down what they are told."""
    tools = tmp_path / "tools"
    tools.mkdir()
    scripts = {
        "mount": 'echo "$@" >> "$RECORD"', "blkid": 'echo "$TYPE"', "id": "echo 990",
        "install": 'echo "install $*" >> "$RECORD"',
    }  # fmt: skip
    for name, body in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "RECORD": str(tmp_path / "record"),
        "EDGE_MEDGEMMA_MEDIA": str(tmp_path / "media"),
    }


@pytest.mark.parametrize(
    ("found", "kind", "options"),
    [
        ("vfat", "vfat", "uid=990,gid=990,fmask=0377,dmask=0277,utf8=1"),
        ("exfat", "exfat", "uid=990,gid=990,fmask=0377,dmask=0277,iocharset=utf8"),
        ("ntfs", "ntfs3", "uid=990,gid=990,fmask=0377,dmask=0277,iocharset=utf8"),
        ("iso9660", "iso9660", "uid=990,gid=990,mode=0400,dmode=0500,iocharset=utf8"),
        ("udf", "udf", "uid=990,gid=990,mode=0400,dmode=0500,iocharset=utf8"),
        ("ext4", "ext4", "noload"),
    ],
)
def test_each_file_system_is_read_only_and_the_services_own(
    recorder: dict[str, str], found: str, kind: str, options: str
) -> None:
    done = media("mount", "sda1", TYPE=found, **recorder)
    assert done.returncode == 0, done.stderr
    lines = Path(recorder["RECORD"]).read_text().splitlines()
    folder = recorder["EDGE_MEDGEMMA_MEDIA"]
    assert lines[-1] == f"-t {kind} -o ro,nosuid,nodev,noexec,{options} /dev/sda1 {folder}/sda1"
    assert f"install -d -m 700 -o edge-medgemma {folder}/sda1" in lines


@pytest.mark.parametrize("kind", ["btrfs", "xfs", "LVM2_member", "ext3", ""])
def test_other_file_systems_are_refused_and_nothing_is_mounted(
    recorder: dict[str, str], kind: str
) -> None:
    done = media("mount", "sda1", TYPE=kind, **recorder)
    assert done.returncode == 1
    assert f"the file system '{kind}' is not read; use FAT" in done.stderr
    assert not Path(recorder["RECORD"]).exists()


@pytest.mark.parametrize("name", ["", "../sda1", "sda1;reboot", "a b"])
def test_a_name_that_is_no_devices_is_refused(recorder: dict[str, str], name: str) -> None:
    done = media("mount", name, TYPE="vfat", **recorder)
    assert done.returncode == 1 and "usage" in done.stderr
    assert not Path(recorder["RECORD"]).exists()


def loop_device(image: Path) -> str | None:
    """A device of the image; None where this machine gives none."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        return None
    made = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    return made.stdout.strip() or None


def test_the_service_reads_a_real_stick_and_cannot_write_it(tmp_path: Path) -> None:
    """Mounted by root under the unit's umask, read by a user without rights, in their own mounts."""
    if shutil.which("mkfs.ext4") is None or shutil.which("unshare") is None:
        pytest.skip("mkfs.ext4 and unshare are not installed")
    image = tmp_path / "stick"
    image.touch()
    os.truncate(image, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", SCAN, image], check=True, capture_output=True)
    device = loop_device(image)
    if device is None:
        pytest.skip("no loop device: root is needed")
    program = tmp_path / "program"
    program.write_text(
        '#!/bin/sh\nid -un; cat "$3"/*.dcm | wc -c; touch "$3/x" 2> /dev/null || echo read-only\n'
    )
    name = Path(device).name
    steps = (
        f"set -e; umask 077; mount -t tmpfs tmpfs /mnt; chmod 755 /mnt; cp {SCRIPT} {program} /mnt;"
        "chmod 755 /mnt/*; export EDGE_MEDGEMMA_MEDIA=/mnt/run/media EDGE_MEDGEMMA_USER=nobody;"
        f"export EDGE_MEDGEMMA_PROGRAM=/mnt/program; /mnt/media.sh mount {name};"
        f"setpriv --reuid nobody --clear-groups /mnt/media.sh take {name};"
        f"/mnt/media.sh unmount {name}; ls /mnt/run/media"
    )
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", steps], capture_output=True, text=True, check=False
        )
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    if "unshare failed" in done.stderr:
        pytest.skip("mounts of its own are not allowed here")
    size = sum(path.stat().st_size for path in SCAN.glob("*.dcm"))
    assert done.stdout.split() == ["nobody", str(size), "read-only", "lock"], done.stderr

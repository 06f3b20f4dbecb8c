"""Installation of the clinic's box, as far as no root is needed: staged, run dry, units judged."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_medgemma.runtime.clinic.settings import ClinicSettings, read_settings

ROOT = Path(__file__).resolve().parents[2]
BOX = ROOT / "box"
SCRIPTS = sorted([*BOX.glob("*.sh"), *ROOT.glob("jetson/*.sh"), *ROOT.glob("tests/*/*.sh")])
CLINIC = "edge-medgemma-clinic.service"
MOUNT = "edge-medgemma-mount@.service"
MEDIA = "edge-medgemma-media@.service"


def install(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(BOX / "install.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def files_below(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {re.sub(r"versions/\w+/", "versions/V/", path) for path in found}


def unit_lines(name: str) -> dict[str, str]:
    """Settings of a unit; of one that is said twice, the last."""
    lines = (BOX / "systemd" / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")  # type: ignore[misc]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    command = ["shellcheck", "--external-sources", "--source-path", ROOT, script]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_a_staged_installation_is_complete_and_an_upgrade_keeps_settings(tmp_path: Path) -> None:
    engine = ROOT / "runtime" / "engines" / "demo"
    first = install(
        "--pc", "--root", tmp_path, "--engine", engine, "--swap", "8", "--kiosk", "--lan"
    )
    assert first.returncode == 0, first.stderr
    assert files_below(tmp_path) == {
        "etc/edge-medgemma/clinic.env",
        "etc/edge-medgemma/clinic.toml",
        f"etc/systemd/system/{CLINIC}",
        f"etc/systemd/system/{MEDIA}",
        f"etc/systemd/system/{MOUNT}",
        "etc/udev/rules.d/90-edge-medgemma-media.rules",
        "etc/xdg/autostart/edge-medgemma.desktop",
        *(f"opt/edge-medgemma/versions/V/box/{name}" for name in (
            "90-edge-medgemma-media.rules", CLINIC, MEDIA, MOUNT,
            "kiosk.sh", "media.sh", "power-mode.sh",
        )),
    }  # fmt: skip
    assert "# fallocate -l 8G" in first.stdout  # a step of the system, printed and not done
    settings = tmp_path / "etc/edge-medgemma/clinic.toml"
    assert read_settings(settings).engine.directory == str(engine)
    environment = tmp_path / "etc/edge-medgemma/clinic.env"
    assert "EDGE_MEDGEMMA_CLINIC_OPTIONS=--lan\n" in environment.read_text()
    current = tmp_path / "opt/edge-medgemma/current"
    assert os.readlink(current).startswith("/opt/edge-medgemma/versions/")

    settings.write_text("[node]\nport = 104\n")
    assert install("--pc", "--root", tmp_path).returncode == 0
    assert settings.read_text() == "[node]\nport = 104\n"
    assert "--lan" in environment.read_text()

    (tmp_path / "var/lib/edge-medgemma/clinic").mkdir()
    gone = install("--pc", "--root", tmp_path, "--uninstall")
    assert files_below(tmp_path) == {
        "etc/edge-medgemma/clinic.env",
        "etc/edge-medgemma/clinic.toml",
    }
    assert f"{tmp_path}/var/lib/edge-medgemma and settings in" in gone.stdout
    assert (tmp_path / "var/lib/edge-medgemma/clinic").is_dir()
    assert install("--pc", "--root", tmp_path, "--uninstall", "--purge").returncode == 0
    assert files_below(tmp_path) == set()
    assert not (tmp_path / "var/lib/edge-medgemma").exists()


def test_without_an_engine_the_settings_are_the_defaults(tmp_path: Path) -> None:
    assert install("--pc", "--root", tmp_path).returncode == 0
    assert read_settings(tmp_path / "etc/edge-medgemma/clinic.toml") == ClinicSettings()


def test_a_dry_run_does_nothing(tmp_path: Path) -> None:
    done = install("--root", tmp_path / "stage", "--dry-run", "--headless")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "stage").exists()
    assert "set-default multi-user.target" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--engine"], 2, "--engine needs a value"),
        (["--motor", "x"], 2, "unknown option '--motor'"),
        (["--engine", "/nowhere"], 1, "'/nowhere' is not an engine directory"),
        (["--wheels", "/nowhere"], 1, "'/nowhere' is not a folder of wheels"),
        (["--swap", "eight"], 1, "a whole number of GB"),
        (["--purge"], 1, "--purge goes with --uninstall"),
    ],
)
def test_bad_arguments_are_named(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    done = install("--root", tmp_path / "stage", *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert not (tmp_path / "stage").exists()


def test_another_machine_is_refused_before_anything_is_written() -> None:
    if Path("/etc/nv_tegra_release").exists():
        pytest.skip("this is a Jetson")
    done = install("--jetson")
    assert done.returncode == 1
    assert re.search(r"run as root|expected aarch64|not a Jetson|systemd expected", done.stderr)
    assert done.stdout == ""


def test_units_are_understood_by_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    assert install("--jetson", "--root", tmp_path).returncode == 0
    (tmp_path / "opt/edge-medgemma/current").unlink()  # absolute: it leads out of the stage
    for program in ("bin/edge-medgemma", "box/media.sh", "box/power-mode.sh"):
        path = tmp_path / "opt/edge-medgemma/current" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", path)
    units = tmp_path / "etc/systemd/system"
    for unit in (MOUNT, MEDIA):
        shutil.copy(units / unit, units / unit.replace("@", "@sda1"))
    for unit in (CLINIC, *(unit.replace("@", "@sda1") for unit in (MOUNT, MEDIA)),
                 "edge-medgemma-power.service"):  # fmt: skip
        command = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", unit]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        about = [line for line in checked.stderr.splitlines() if "edge-medgemma" in line]
        # Units of the system itself are not staged.
        about = [line for line in about if "not found" not in line]
        assert about == [], checked.stderr


# What mounts cannot have a view of the file system of its own, which makes up most of the figure.
@pytest.mark.parametrize(("unit", "most"), [(CLINIC, 2.0), (MEDIA, 2.0), (MOUNT, 4.0)])
def test_the_exposure_of_a_unit_is_small(unit: str, most: float, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / unit.replace("@", "@sda1")
    shutil.copy(BOX / "systemd" / unit, path)
    threshold = f"--threshold={most * 10:.0f}"
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", threshold, path]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze judges no file")
    assert judged.returncode == 0, judged.stdout[-200:]


def test_what_mounts_shares_its_view_of_the_file_system() -> None:
    """Any of these gives a unit mounts of its own: nobody else would see the medium."""
    private = re.compile(
        "PrivateTmp|PrivateDevices|PrivateMounts|PrivateNetwork|Protect|ReadOnly|ReadWrite|TemporaryFile"
        "|Inaccessible|Bind(ReadOnly)?Paths|RootDirectory|RootImage|MountFlags|ProcSubset|DynamicUser"
    )
    assert [name for name in unit_lines(MOUNT) if private.match(name)] == []
    assert unit_lines(MEDIA)["BindsTo"] == "edge-medgemma-mount@%i.service"
    assert not any("mount" in value for name, value in unit_lines(MEDIA).items() if "Exec" in name)

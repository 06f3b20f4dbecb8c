"""Pictures of every page: `PYTHONPATH=tests python tests/clinic/screenshots.py --out build/screenshots`.

Widths of a phone and a PC, light and dark, every language asked for; and frames a second while the
slices are scrolled. Needs chromium of the system and the extra `dev`.
"""

import tempfile
from pathlib import Path
from typing import Any

import click
from support.clinic_page import add_user, chromium, log_in, served
from support.clinic_states import fill

from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.runtime.clinic.page.app import create_app
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Site
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.triage_scan import triage_scan

DEMO_ENGINE = Path(__file__).resolve().parents[2] / "runtime" / "engines" / "demo"
WIDTHS = {390: 844, 1280: 900}

FRAMES = """async () => {
  const viewer = document.getElementById('viewer'), stage = viewer.querySelector('.stage');
  const pause = ms => new Promise(done => setTimeout(done, ms));
  const slider = document.getElementById('slice');
  for (let waited = 0; waited < 100 && !viewer.dataset.frames; waited++) await pause(100);
  await pause(3000);
  const before = Number(viewer.dataset.frames), began = performance.now();
  let ticks = 0, direction = 1;
  while (performance.now() - began < 3000) {
    const place = Number(slider.value);
    if (place >= Number(slider.max)) direction = -1;
    if (place <= 1) direction = 1;
    stage.dispatchEvent(new WheelEvent('wheel', { deltaY: 40 * direction, bubbles: true, cancelable: true }));
    await new Promise(requestAnimationFrame);
    ticks++;
  }
  const seconds = (performance.now() - began) / 1000;
  return [(Number(viewer.dataset.frames) - before) / seconds, ticks / seconds];
}"""


def frames_per_second(page: Any) -> tuple[float, float]:
    """New slices that are drawn a second while the wheel turns, and frames that the browser has."""
    drawn, offered = page.evaluate(FRAMES)
    return float(drawn), float(offered)


def _make_state(folder: Path) -> tuple[StateFolder, dict[str, str]]:
    scan = folder / "scan"
    phantom = draw_phantom(3_000_002, findings=frozenset({"intracranial_haemorrhage"}))
    write_dicom_series(phantom, scan)
    with Engine.open(DEMO_ENGINE, threads=2) as engine:
        report = triage_scan(engine, scan)
    state = StateFolder(folder / "state")
    return state, fill(state, scan, report)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/screenshots"))
@click.option("--languages", default="en,fr,ar,hi", help="Tags, joined by commas.")
@click.option("--widths", default="390,1280", help="In CSS pixels, joined by commas.")
@click.option("--schemes", default="light,dark")
def main(out: Path, languages: str, widths: str, schemes: str) -> None:
    """Write NAME-LANGUAGE-WIDTH-SCHEME.png of every page, and print frames a second."""
    out.mkdir(parents=True, exist_ok=True)
    settings = ClinicSettings(
        site=Site(name="Kijabe Clinic", show_patient=True, show_accession=True, demonstration=True)
    )
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        state, keys = _make_state(Path(folder))
        add_user(state)
        pages = {
            "worklist": "/", "study": f"/studies/{keys['critical']}", "add": "/add", "setup": "/setup",
            "sheet": f"/studies/{keys['critical']}/sheet",
            "incomplete": f"/studies/{keys['incomplete']}", "routine": f"/studies/{keys['routine']}",
        }  # fmt: skip
        with served(create_app(state, settings)) as address:
            for language in languages.split(","):
                for width in map(int, widths.split(",")):
                    for scheme in schemes.split(","):
                        context = browser.new_context(
                            viewport={"width": width, "height": WIDTHS.get(width, 900)},
                            color_scheme=scheme, locale=language, reduced_motion="reduce",
                        )  # fmt: skip
                        page = context.new_page()
                        log_in(page, address)
                        for name, path in pages.items():
                            page.goto(address + path)
                            page.wait_for_timeout(700)
                            if "/studies/" in path and not path.endswith("/sheet"):
                                page.wait_for_selector("#window option", state="attached")
                                page.wait_for_timeout(700)
                            file = out / f"{name}-{language}-{width}-{scheme}.png"
                            page.screenshot(path=file, full_page=True)
                        context.close()
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            log_in(page, address)
            page.goto(address + pages["study"])
            drawn, offered = frames_per_second(page)
            click.echo(f"slices drawn a second {drawn:.1f}, frames of the browser {offered:.1f}")


if __name__ == "__main__":
    main()

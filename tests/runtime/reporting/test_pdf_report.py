import io
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image, ImageFile

from edge_medgemma.runtime.errors import DependencyError
from edge_medgemma.runtime.reporting.html_report import printed_images, render_html
from edge_medgemma.runtime.reporting.options import RenderOptions, StudyContext
from edge_medgemma.runtime.reporting.pdf_report import render_pdf
from edge_medgemma.runtime.reporting.translation import languages
from edge_medgemma.runtime.reporting.words import DOUBTS, PROBLEMS
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.protocol import builtin_protocols
from edge_medgemma.runtime.triage.report import FindingStatus, StudyReport
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS, Urgency

weasyprint = pytest.importorskip(
    "weasyprint", reason="PDFs need the extra pdf", exc_type=ImportError
)
ImageFile.LOAD_TRUNCATED_IMAGES = False  # WeasyPrint's import sets it for the whole process


def pages(html: str) -> int:
    """How many pages WeasyPrint lays out."""
    return len(weasyprint.HTML(string=html).render().pages)


def crowded(study: StudyReport) -> StudyReport:
    """Most findings of any protocol, most of them flagged, six key images and many problems."""
    protocol = max(builtin_protocols(), key=lambda one: len(one.findings))
    flagged = next(one for one in study.findings if one.key_slices)
    findings = tuple(
        replace(flagged, title=one.title, urgency=one.urgency, fitted_on=(50, 50), probability=0.5)
        if place < 5
        else replace(
            flagged,
            title=one.title,
            status=FindingStatus.NOT_ASSESSED,
            key_slices=(),
            reason="this engine was not made for it",
        )
        for place, one in enumerate(protocol.findings)
    )
    titles = tuple(one.title for one in findings[:3])
    blocking, others = list(BLOCKING_PROBLEMS)[:5], list(PROBLEMS)[:8]
    detail = (
        "Slices are 1.08 to 7.00 mm apart, and this sentence goes on as some of them do, to 12.3 mm"
    )
    return replace(
        study,
        protocol_title=protocol.title,
        findings=findings,
        key_images=tuple(
            replace(study.key_images[0], slice_index=9 + place, findings=titles)
            for place in range(6)
        ),
        limitations=tuple(BLOCKING_PROBLEMS[name] for name in blocking),
        problems=tuple(Problem(name, f"{detail} ({name})") for name in (*blocking, *others)),
    )


@pytest.mark.parametrize("language", languages())
def test_a_study_is_one_page_however_much_there_is_to_say(report, language) -> None:
    flagged = next(study for study in report.studies if study.flagged)
    told = crowded(flagged)
    context = StudyContext("A" * 16, tuple(DOUBTS)[:3], ("Pneumothorax",))
    options = RenderOptions(language, {told.study_uid: context})
    notice = "demonstration only: this engine was trained on synthetic phantoms, knows nothing of " \
        "real patients, and must not be used for them"  # fmt: skip
    engine = replace(report.engine, notice=notice)
    again = tuple(replace(one, slice_index=one.slice_index + 6) for one in told.key_images)
    merged = replace(told, key_images=(*told.key_images, *again))  # of a look and an earlier one
    for studies in ((told,), (replace(merged, urgency=Urgency.NOT_ASSESSABLE),)):
        assert pages(render_html(replace(report, engine=engine, studies=studies), options)) == 1


def test_every_study_of_a_report_is_one_page_and_the_queue_another(report) -> None:
    assert pages(render_html(report)) == 1 + len(report.studies)


def test_a_queue_of_41_studies_is_one_page_with_a_link_to_each_sheet(report) -> None:
    """The sheets are one page each by the tests above; 41 of them take long to lay out."""
    studies = tuple(
        replace(report.studies[number % 4], name=f"Study {number + 1}", key_images=())
        for number in range(41)
    )
    page = render_html(replace(report, studies=studies))
    queue, *sheets = page.split("</section>")[:-1]
    assert len(sheets) == 41 and pages(queue) == 1
    for number, sheet in enumerate(sheets, start=1):
        assert f'href="#sheet-{number}"' in queue and f'id="sheet-{number}"' in sheet


def test_each_flagged_finding_has_a_picture_on_paper(report) -> None:
    study = crowded(next(study for study in report.studies if study.flagged))
    titles = [finding.title for finding in study.flagged]
    pictures = [
        replace(study.key_images[0], slice_index=place, findings=(titles[max(place - 7, 0)],))
        for place in range(7 + len(titles))
    ]
    told = replace(study, key_images=tuple(pictures))
    shown = printed_images(told)
    assert len(shown) == 6
    assert {title for p in pictures if p.slice_index in shown for title in p.findings} == {*titles}
    page = render_html(replace(report, studies=(told,)))
    assert page.count("<figure ") == len(pictures)
    assert page.count('<figure class="screen"') == len(pictures) - 6


def test_key_images_are_framed_in_their_own_shape(report) -> None:
    study = report.studies[0]
    wide = replace(study.key_images[0], pixels=study.key_images[0].pixels[:10])
    page = render_html(replace(report, studies=(replace(study, key_images=(wide,)),)))
    rows, columns = wide.pixels.shape
    width = float(page.split('<figure style="width: ')[1].split("mm")[0])
    height = float(page.split('<div class="frame" style="height: ')[1].split("mm")[0])
    assert width / height == pytest.approx(columns / rows, rel=0.02)


def test_a_pdf_fetches_nothing(tmp_path) -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4), 200).save(file, "PNG")
    (tmp_path / "secret.png").write_bytes(file.getvalue())
    page = f'<img src="file://{tmp_path}/secret.png"><img src="http://127.0.0.1:9/a.png">'
    assert b"/Image" not in render_pdf(page)
    assert b"/Image" in weasyprint.HTML(string=page).write_pdf()


def test_without_weasyprint_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(DependencyError, match=r"install edge-medgemma\[pdf\]"):
        render_pdf("")


def test_the_same_page_gives_the_same_pdf(report) -> None:
    page = render_html(replace(report, studies=report.studies[:1]), RenderOptions("ar"))
    assert render_pdf(page) == render_pdf(page)


@pytest.mark.skipif(shutil.which("pdfinfo") is None, reason="reads the PDF with poppler's pdfinfo")
def test_a_pdf_is_tagged_for_screen_readers(report, tmp_path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(render_pdf(render_html(replace(report, studies=report.studies[:1]))))
    said = subprocess.run(["pdfinfo", path], capture_output=True, text=True, check=True).stdout
    assert "Tagged:          yes" in said and "A4" in said and "JavaScript:      no" in said


def test_a_picture_that_is_cut_short_is_refused_after_a_pdf_was_made_too() -> None:
    """In a process of its own: WeasyPrint is imported but once."""
    code = (
        "import io\nfrom PIL import Image\n"
        "from edge_medgemma.runtime.reporting.pdf_report import render_pdf\n"
        "render_pdf('<p>a</p>')\nfile = io.BytesIO()\n"
        "Image.effect_noise((64, 64), 50).save(file, 'PNG')\n"
        "try:\n    Image.open(io.BytesIO(file.getvalue()[:2000])).load()\n"
        "except OSError:\n    print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"

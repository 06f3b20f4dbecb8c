"""Files of a triage run: for programs, for people, and on paper."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.reporting.html_report import render_html, write_html_report
from edge_medgemma.runtime.reporting.json_report import write_json_report
from edge_medgemma.runtime.reporting.options import RenderOptions, StudyContext
from edge_medgemma.runtime.reporting.pdf_report import check_pdf, render_pdf
from edge_medgemma.runtime.slicing.dicom.accession import read_accession_numbers
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.triage.report import TriageReport


@dataclass(slots=True)
class ReportFiles:
    """Files of a run, written after every pass and once more at the end."""

    folder: Path
    with_report: bool
    with_pdf: bool = False
    options: RenderOptions = field(default_factory=RenderOptions)
    latest: TriageReport | None = None

    def __post_init__(self) -> None:
        """Refused before anything is looked at.

        Raises:
            DependencyError: what makes PDFs is not installed.
        """
        if self.with_pdf:
            check_pdf()

    @property
    def shown(self) -> Path:
        """The file for a person, or else the one there is."""
        return self.folder / ("report.html" if self.with_report else "triage.json")

    def write(self, report: TriageReport) -> None:
        """Write what programs and people read."""
        write_json_report(report, self.folder / "triage.json")
        if self.with_report:
            write_html_report(report, self.folder / "report.html", self.options)

    def keep(self, report: TriageReport) -> None:
        """Write the result of a pass; an error is raised only at the end, after printing."""
        self.latest = report
        with contextlib.suppress(ResourceError):
            self.write(report)

    def finish(self, report: TriageReport) -> None:
        """Write all files of the last pass, also those that take long to make."""
        self.write(report)
        if self.with_pdf:
            pdf = render_pdf(render_html(report, self.options))
            write_atomically(self.folder / "report.pdf", pdf)


def study_contexts(scan: Path) -> Mapping[str, StudyContext]:
    """Study instance UID to its accession number, of the studies of a scan that have one.

    Raises:
        ScanError: nothing is readable.
    """
    numbers = read_accession_numbers(find_series(scan).series)
    return {study_uid: StudyContext(number) for study_uid, number in numbers.items()}

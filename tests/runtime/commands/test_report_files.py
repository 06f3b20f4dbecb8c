from click.testing import CliRunner
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.commands.report_files import study_contexts
from edge_medgemma.runtime.commands.triage import command


def test_accession_numbers_stand_on_the_page_and_never_in_the_document(tmp_path) -> None:
    write_head_ct(tmp_path / "scan", AccessionNumber="A-4711", StudyDate="20240305")
    assert study_contexts(tmp_path / "scan")["1.2.3.1"].accession_number == "A-4711"
    for options in ([], ["--accession"]):
        out = tmp_path / f"out{len(options)}"
        arguments = [str(tmp_path / "scan"), "--out", str(out), "--no-cache", *options]
        result = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert result.exit_code == 0 and "A-4711" not in result.output
        page = (out / "report.html").read_text()
        assert ("A-4711" in page) is bool(options)
        assert "2024-03-05" in page
        assert "A-4711" not in (out / "triage.json").read_text()


def test_a_pdf_and_a_language_are_made_on_request(tmp_path) -> None:
    write_head_ct(tmp_path / "scan")
    arguments = [str(tmp_path / "scan"), "--out", str(tmp_path), "--pdf", "--language", "en"]
    assert CliRunner().invoke(command, arguments).exit_code == 0
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    refused = CliRunner().invoke(command, [*arguments[:-1], "xx"])
    assert refused.exit_code == 2 and "'xx' is not" in refused.output

import csv
from pathlib import Path

from edge_medgemma.calibration.evaluation.language.csv_file import write_csv


def test_text_of_a_model_is_no_formula_and_no_escape_sequence(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    said = ["=HYPERLINK(1)", "+1", "@x", "a\x1b[2Jb", 'two\nlines, "quoted"', "\udcff"]
    write_csv(
        path, ["answer", "is_exact", "f1", "none"], [(text, True, 0.5, None) for text in said]
    )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == [
        "'=HYPERLINK(1)", "'+1", "'@x", "a\\x1b[2Jb", 'two\nlines, "quoted"', "\\udcff",
    ]  # fmt: skip
    assert all(row[1:] == ["1", "0.5", ""] for row in rows)

"""The tables in the terminal: no figure is cut."""

from dataclasses import replace

from support.sample_evaluation import sample_evaluation

from edge_medgemma.calibration.evaluation.commands.evaluation_table import (
    flow_lines,
    print_evaluation,
)


def test_without_labels_it_does_not_say_that_nothing_was_read() -> None:
    flow = replace(sample_evaluation(120, ())[0].flow, label_rows=0, studies_labelled=0)
    lines = list(flow_lines(flow))
    assert lines[0].startswith(f"{flow.studies_found} studies found, none labelled")
    assert not any("0 read" in one or "without a label" in one for one in lines)


def test_no_figure_of_a_comparison_is_cut(capsys) -> None:
    document = sample_evaluation(120, (), is_compared=True)[0]
    assert document.comparison is not None
    wide = tuple(
        replace(
            one,
            code="intracranial_haemorrhage",
            area=replace(one.area, value=0.0, low=-0.842, high=0.975),
        )
        for one in document.comparison.findings
    )
    print_evaluation(replace(document, comparison=replace(document.comparison, findings=wide)))
    shown = capsys.readouterr().out
    assert shown.count("(-0.842 to +0.975)") == len(wide)

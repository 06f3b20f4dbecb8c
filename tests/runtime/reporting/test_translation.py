import pytest

from edge_medgemma.runtime.reporting.translation import Translation, languages


def test_english_is_always_there_and_says_what_is_written() -> None:
    assert languages()[0] == "en"
    english = Translation("en")
    assert english.text("Critical: look now") == "Critical: look now"
    assert english.text("") == ""
    assert english.plural("%(num)d slice", "%(num)d slices", 1) == "1 slice"
    assert english.is_reviewed and not english.is_right_to_left


def test_a_language_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no language 'xx'; expected one of en"):
        Translation("xx")

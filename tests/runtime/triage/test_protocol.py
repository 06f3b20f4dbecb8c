import pytest

from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.slicing.volume import BodyPart
from edge_medgemma.runtime.triage.protocol import (
    MAX_PROTOCOL_BYTES,
    builtin_names,
    builtin_protocols,
    load_protocol,
)
from edge_medgemma.runtime.triage.urgency import Urgency

VALID = """
name = "p"
title = "P"
modalities = ["CT"]
body_parts = ["head"]
slices = 3
instruction = "Look."
[[findings]]
code = "a_b"
title = "A"
question = "Is there a?"
urgency = "urgent"
threshold = 0.5
"""


@pytest.fixture
def load(tmp_path):
    def load_text(text: str):
        path = tmp_path / "p.toml"
        path.write_text(text, encoding="utf-8")
        return load_protocol(str(path))

    return load_text


def test_the_protocols_of_the_package() -> None:
    assert builtin_names() == ("abdomen_ct", "brain_mr", "chest_ct", "chest_xray", "head_ct",
                               "head_ct_demo")  # fmt: skip
    for name, protocol in zip(builtin_names(), builtin_protocols(), strict=True):
        assert protocol.name == name
        assert all(f.question.endswith("? Answer yes or no.") for f in protocol.findings)
        assert any(f.urgency is Urgency.CRITICAL for f in protocol.findings)


def test_the_words_that_the_demonstration_engine_was_trained_on() -> None:
    questions = [f.question for f in load_protocol("head_ct").findings[:3]]
    assert questions == [
        f"Based on the slices provided above, is there {what}? Answer yes or no."
        for what in ("an intracranial hemorrhage", "a mass effect or midline shift",
                     "a skull fracture")
    ]  # fmt: skip
    assert load_protocol("head_ct").slices == 24


def test_no_two_protocols_cover_the_same_kind_of_study() -> None:
    kinds = [
        (modality, part)
        for protocol in builtin_protocols()
        if protocol.is_automatic
        for modality in protocol.modalities
        for part in protocol.body_parts
    ]
    assert len(kinds) == len(set(kinds))
    assert BodyPart.UNKNOWN not in {part for _, part in kinds}, "it would be guessed"


def test_a_file_is_read(load) -> None:
    protocol = load(VALID)
    assert protocol.findings[0].threshold == 0.5
    assert protocol.findings[0].standard_code is None
    assert protocol.minimum_extent_mm == 0
    coded = load(VALID + 'standard_code = {scheme = "SCT", value = "1", display = "x"}')
    assert coded.findings[0].standard_code.value == "1"
    assert coded.sha256 != protocol.sha256


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slices = 3", "slices = 0", r"`int` >= 1 - at `\$.slices`"),
        ("slices = 3", "slices = true", r"Expected `int`, got `bool` - at `\$.slices`"),
        ("slices = 3", "", "missing required field `slices`"),
        ("slices = 3", "slices = 3\nslcies = 4", r"unknown field `\$.slcies`"),
        ("threshold = 0.5", "threshold = nan", r"at `\$.findings\[0\].threshold`"),
        ("threshold = 0.5", "threshold = inf", r"at `\$.findings\[0\].threshold`"),
        ("threshold = 0.5", "", "missing required field `threshold`"),
        (
            "threshold = 0.5",
            "threshold = 0.5\nthresh = 1",
            r"unknown field `\$.findings\[0\].thresh`",
        ),
        ('"urgent"', '"not_assessable"', "expected critical, urgent or routine"),
        ('"urgent"', '"soon"', "'soon'.*urgency is one of critical"),
        ('"urgent"', "[]", r"at `\$.findings\[0\].urgency`"),
        ('["CT"]', '["US"]', "'US' - at .*modality is one of CT, MR, CR, DX"),
        ('["head"]', "[]", r"length >= 1 - at `\$.body_parts`"),
        ('"a_b"', '"A b"', r"at `\$.findings\[0\].code`"),
        ('"Is there a?"', '" "', r"at `\$.findings\[0\].question`"),
        ("[[findings]]", "[findings]", "Expected `array`, got `object`"),
        ('name = "p"', 'name = "p', "correct the file"),
    ],
)
def test_a_mistake_is_named(load, old, new, message) -> None:
    with pytest.raises(ProtocolError, match=message):
        load(VALID.replace(old, new))


def test_a_code_may_not_occur_twice(load) -> None:
    with pytest.raises(ProtocolError, match="'a_b' stands twice"):
        load(VALID + VALID[VALID.index("[[findings]]") :])


def test_other_files_are_refused(load, tmp_path) -> None:
    with pytest.raises(ProtocolError, match="no protocol 'neck_ct'; expected auto"):
        load_protocol("neck_ct")
    with pytest.raises(ProtocolError, match="no protocol"):
        load_protocol("../protocols/head_ct")
    with pytest.raises(ProtocolError, match="larger than"):
        load("#" * (MAX_PROTOCOL_BYTES + 1))
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ProtocolError, match="correct the file"):
        load_protocol(str(tmp_path / "b.toml"))

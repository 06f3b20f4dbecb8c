import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage

from edge_medgemma.runtime.slicing.dicom.body_parts import parts_in_text
from edge_medgemma.runtime.slicing.dicom.dicom_terms import has_contrast_agent
from edge_medgemma.runtime.slicing.dicom.frames import Frame
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import BodyPart

HEAD, CHEST, ABDOMEN, OTHER = BodyPart.HEAD, BodyPart.CHEST, BodyPart.ABDOMEN, BodyPart.OTHER


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("BRAIN", (HEAD,)), ("CT HEAD W/O CONTRAST", (HEAD,)), ("01_HeadRoutine", (HEAD,)),
        ("HeadSeq 4.8 H31s", (HEAD,)), ("CCT nativ", (HEAD,)), ("Schädel nativ", (HEAD,)),
        ("Kopf", (HEAD,)), ("Schaedelbasis", (HEAD,)), ("Scanner cérébral", (HEAD,)),
        ("CRANE SANS IV", (HEAD,)), ("TAC de cráneo simple", (HEAD,)), ("CABEZA", (HEAD,)),
        ("TC CRANIO", (HEAD,)), ("Encéfalo", (HEAD,)), ("NEURO^Stroke", (HEAD,)),
        ("CT CHEST PULMONARY ANGIO WITH IV CON", (CHEST,)), ("CTPA", (CHEST,)),
        ("Thorax pa", (CHEST,)), ("Thoraxübersicht", (CHEST,)), ("Röntgen-Thorax", (CHEST,)),
        ("RADIOGRAFIA DE TÓRAX", (CHEST,)), ("Poumons", (CHEST,)), ("TC TORAX", (CHEST,)),
        ("ABDOMEN", (ABDOMEN,)), ("CT KUB", (ABDOMEN,)), ("Oberbauch", (ABDOMEN,)),
        ("ABDOME TOTAL", (ABDOMEN,)), ("6.9 Colonoscopy", (ABDOMEN,)), ("PELVIS", (ABDOMEN,)),
        ("Scanner abdomino-pelvien", (ABDOMEN,)), ("UROTAC", (ABDOMEN,)),
        ("CHEST_ABDOMEN", (CHEST, ABDOMEN)), ("TAP injecté", (CHEST, ABDOMEN)),
        ("CT Chest/Abd/Pelvis", (CHEST, ABDOMEN)), ("ThorAbd", (CHEST, ABDOMEN)),
        ("HEAD AND CERVICAL SPINE", (HEAD,)), ("THORACIC SPINE", (OTHER,)), ("T-Spine", (OTHER,)),
        ("femoral head", (OTHER,)), ("KNEE", (OTHER,)), ("Columna cervical", (OTHER,)),
        ("cCT", (HEAD,)), ("HEADROUTINE", (HEAD,)), ("BrainSeq", (HEAD,)), ("TC toraco-abdominal", (CHEST, ABDOMEN)),
        ("Thoracoabdominal", (CHEST, ABDOMEN)), ("ThorAbdomen", (CHEST, ABDOMEN)), ("Lungenembolie", (CHEST,)),
        ("head of femur", (OTHER,)), ("Tête fémorale", (OTHER,)), ("cabeza del fémur", (OTHER,)),
        ("Rachis thoracique", (OTHER,)), ("FETAL BRAIN", (OTHER,)), ("FLAIR", ()),
        ("HWS", (OTHER,)), ("Rachis lombaire", (OTHER,)),
        ("5.10 PE>200 LBS", ()), ("ignore all instructions", ()), ("head first supine", ()),
        ("e+1", ()), ("ax_asc_35sl", ()), ("", ()), ("HEADNECK", ()),
    ],
)  # fmt: skip
def test_words_of_five_languages(text: str, parts: tuple[BodyPart, ...]) -> None:
    assert parts_in_text(text) == parts


@pytest.mark.parametrize(
    ("sop_class", "stated", "parts"),
    [
        (MRImageStorage, None, (HEAD,)),
        (MRImageStorage, "CSPINE", (OTHER,)),
        (CTImageStorage, None, (BodyPart.UNKNOWN,)),
    ],
    ids=["alone", "run on another part", "CT"],
)
def test_sequences_of_the_brain_name_it_where_nothing_else_names_a_part(
    write_slice, sop_class, stated, parts
) -> None:
    path = write_slice(
        0, SOPClassUID=sop_class, BodyPartExamined=stated, SeriesDescription="t1_mprage_sag"
    )
    (series,) = find_series(path).series
    assert series.body_parts == parts


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"BodyPartExamined": None, "StudyDescription": "CT CHEST"}, (CHEST,)),
        ({"BodyPartExamined": None, "ProtocolName": "Abdomen", "StudyDescription": "CT CHEST"}, (ABDOMEN,)),
        ({"BodyPartExamined": None, "FilterType": "HEAD FILTER"}, (HEAD,)),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "Thorax ABDOMEN"}, (CHEST,)),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "Head 5 mm"}, (HEAD, CHEST)),
        ({"BodyPartExamined": "FOOT"}, (OTHER,)),
        ({"BodyPartExamined": None}, (BodyPart.UNKNOWN,)),
    ],
)  # fmt: skip
def test_the_series_goes_before_the_study(write_slice, changes, parts) -> None:
    (series,) = find_series(write_slice(0, **changes)).series
    assert series.body_parts == parts


@pytest.mark.parametrize(
    ("changes", "is_enhanced"),
    [
        ({}, False), ({"ContrastBolusAgent": "Iohexol"}, True), ({"ContrastBolusAgent": "NONE"}, False),
        ({"SeriesDescription": "HEAD WITHOUT CONTRAST"}, False), ({"SeriesDescription": "Kopf nativ"}, False),
        ({"ContrastBolusAgent": "NO CONTRAST"}, False), ({"ContrastBolusAgent": "ohne KM"}, False),
        ({"ContrastBolusAgent": "sans injection"}, False), ({"ContrastBolusAgent": "N/A"}, False),
        ({"ContrastBolusAgent": "-"}, False), ({"ContrastBolusAgent": "keines"}, False),
        ({"ContrastBolusAgent": "NON IONIC"}, True), ({"ContrastBolusAgent": "APPLIED"}, True),
        ({"ContrastBolusAgent": "UNKNOWN"}, True), ({"ContrastBolusAgent": "100 ML"}, True),
        ({"SeriesDescription": "Kopf venös"}, True), ({"SeriesDescription": "CT Brain Perfusion"}, True),
        ({"SeriesDescription": "Crâne injecté"}, True), ({"SeriesDescription": "HEAD +C"}, True), ({"SeriesDescription": "Kopf KM"}, True), ({"SeriesDescription": "Kopf o. KM"}, False),
        ({"SeriesDescription": "CTA Head"}, True), ({"SeriesDescription": "HEAD W/O AND W/ CONTRAST"}, False),
        ({"SeriesDescription": "Ax C- 5mm"}, False), ({"SeriesDescription": "CEREBRAL"}, False),
    ],
)  # fmt: skip
def test_a_contrast_agent_is_found(changes, is_enhanced: bool) -> None:
    dataset = Dataset()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    assert has_contrast_agent(Frame(dataset, 0)) is is_enhanced

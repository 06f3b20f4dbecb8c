"""When a scan was made, as its header says: a date and time, or nothing; never other text."""

import re
from datetime import date, datetime

from pydicom.dataset import Dataset

_PAIRS = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)

KEYWORDS = [
    "AcquisitionDateTime",
    "TimezoneOffsetFromUTC",
    *(word for pair in _PAIRS for word in pair),
]

_DATE = re.compile(r"(\d{4})[.:]?(\d{2})[.:]?(\d{2})")
"""PS3.5 6.2: `YYYYMMDD`; ACR-NEMA wrote points."""

_TIME = re.compile(r"(\d{2}):?(\d{2}):?(\d{2})?")

_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")


def scan_time(dataset: Dataset) -> str:
    """ISO 8601 date, `T` and time to the minute where it is given, and the offset where it is.

    Acquisition comes before series and study: the others may be those of the request. PS3.3 C.7.3.1
    """
    stamp = _text(dataset, "AcquisitionDateTime")
    stated = _stamp(stamp[:8], stamp[8:14])
    for day, clock in _PAIRS:
        stated = stated or _stamp(_text(dataset, day), _text(dataset, clock))
    offset = _OFFSET.search(stamp[14:]) or _OFFSET.fullmatch(
        _text(dataset, "TimezoneOffsetFromUTC")
    )
    if "T" in stated and offset and int(offset[2]) <= 14 and int(offset[3]) < 60:
        return f"{stated}{offset[1]}{offset[2]}:{offset[3]}"
    return stated


def _stamp(day: str, clock: str) -> str:
    found = _DATE.match(day)
    if found is None:
        return ""
    try:
        when = date(*map(int, found.groups()))
        time = _TIME.match(clock)
        if time is None:
            return when.isoformat()
        moment = datetime(when.year, when.month, when.day, int(time[1]), int(time[2]))
        return moment.isoformat(timespec="minutes")
    except ValueError:
        return ""


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()

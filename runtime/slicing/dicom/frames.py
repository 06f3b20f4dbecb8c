"""One frame of a DICOM object: attributes wherever its kind of object keeps them."""

import math
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Frame:
    """A classic image (its only frame is 0) or one frame of an enhanced multi-frame object."""

    dataset: Dataset
    index: int

    def get(self, keyword: str, macro: str = "") -> Any:
        """The attribute from the frame's own functional group, the shared one, or the top level.

        `macro` is the keyword of the functional group sequence (PS3.3 C.7.6.16).
        """
        for group in self._groups():
            items = group.get(macro) if macro else None
            if items and items[0].get(keyword) is not None:
                return items[0].get(keyword)
        return self.dataset.get(keyword)

    def group(self, macro: str) -> Dataset | None:
        """The first item of a functional group sequence, the frame's own before the shared."""
        for group in self._groups():
            if items := group.get(macro):
                first: Dataset = items[0]
                return first
        return None

    def _groups(self) -> list[Dataset]:
        groups = []
        per_frame = self.dataset.get("PerFrameFunctionalGroupsSequence") or []
        if self.index < len(per_frame):
            groups.append(per_frame[self.index])
        groups.extend((self.dataset.get("SharedFunctionalGroupsSequence") or [])[:1])
        return groups

    def number(self, keyword: str, macro: str = "") -> float | None:
        """A finite number, the first of several, or None if absent or not a number."""
        numbers = as_numbers(self.get(keyword, macro))
        return numbers[0] if numbers else None

    def numbers(self, keyword: str, macro: str, count: int) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers, or None."""
        numbers = as_numbers(self.get(keyword, macro))
        return numbers if len(numbers) == count else None

    def term(self, keyword: str, macro: str = "") -> str:
        """A coded string, stripped and in capitals; several values joined by a backslash."""
        value = self.get(keyword, macro)
        if value is None:
            return ""
        values = value if isinstance(value, (list, tuple)) or _is_multiple(value) else [value]
        return "\\".join(str(part).strip().upper() for part in values)


def as_numbers(value: Any) -> tuple[float, ...]:
    """The finite numbers of a possibly multi-valued attribute; empty if any is not one."""
    values = value if _is_multiple(value) else [value]
    try:
        numbers = tuple(_as_number(part) for part in values)
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if all(math.isfinite(number) for number in numbers) else ()


def _as_number(part: Any) -> float:
    """Some writers put the decimal comma of their locale where PS3.5 6.2 wants a point."""
    return float(part.replace(",", ".") if isinstance(part, str) else part)


def _is_multiple(value: Any) -> bool:
    return not isinstance(value, (str, bytes)) and hasattr(value, "__iter__")

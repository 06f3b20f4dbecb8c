"""Compare two triage.json of one scan from two kinds of processor; exit status 1 where they differ.

Words, flags and urgencies must be equal. Log-odds may differ by what kernels of another processor
round differently: int4 products with 8-bit activations are summed in another order.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAXIMUM_LOGIT_DIFFERENCE = 0.05
"""Near 50 % it moves a reported percentage by one point; a flag needs far more."""

IGNORED = {"timings_s", "created_at", "program", "passes"}
"""What differs between any two runs."""


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf that is not the same, with its place."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted((one.keys() | other.keys()) - IGNORED):
            yield from differences(one.get(key), other.get(key), f"{path}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{path}/{number}")
    elif one != other:
        yield path, one, other


def main() -> int:
    """Print the verdict; see the module."""
    reports = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3]]
    numbers: list[float] = []
    wrong = []
    for path, one, other in differences(*reports):
        if isinstance(one, float) and isinstance(other, float):
            numbers.append(abs(one - other))
        else:
            wrong.append(f"{path}: {one!r} against {other!r}")
    if not numbers:
        wrong.append("no score differs in any bit: nothing was computed, or both on one processor")
    largest = max(numbers, default=0.0)
    if largest > MAXIMUM_LOGIT_DIFFERENCE:
        wrong.append(f"largest difference {largest:.3g}, allowed {MAXIMUM_LOGIT_DIFFERENCE}")
    for line in wrong:
        print(line, file=sys.stderr)
    verdict = "differ" if wrong else "agree"
    print(f"the two reports {verdict}; largest difference of a score {largest:.3g}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

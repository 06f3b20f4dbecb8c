"""Print a table from what `works.py` and the plugin wrote: instructions.py WORKS OURS THEIRS."""

import sys
from pathlib import Path


def counts(path: str) -> list[int]:
    """Instructions of each work, from the marks before and after it."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    marks = [int(line.split()[1]) for line in lines if line.startswith("instructions ")]
    return [after - before for before, after in zip(marks[::2], marks[1::2], strict=True)]


def main() -> None:
    """See the module."""
    works = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    print(f"{'work':34}{'ours':>12}{'onnxruntime':>14}{'theirs / ours':>15}")
    for name, ours, theirs in zip(works, counts(sys.argv[2]), counts(sys.argv[3]), strict=True):
        print(f"{name:34}{ours:12,}{theirs:14,}{theirs / ours:15.2f}")


if __name__ == "__main__":
    main()

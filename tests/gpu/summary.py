"""The results in a screenful: what failed and why, and the figures that are asked about first."""

from collections.abc import Iterator, Sequence
from typing import Any


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Lines about results in the form of `results.json`."""
    lines = []
    for one in results:
        said = one["reason"] or next(iter(reversed(one["log_tail"])), "")
        lines.append(f"{one['status']:9} {one['wall_s']:6.1f} s  {one['name']:18} {said}".rstrip())
        if one["document"]:
            lines += [f"{'':20}{line}" for line in _figures(one["name"], one["document"])]
    return "\n".join(lines)


def _figures(name: str, document: Any) -> Iterator[str]:
    if name == "doctor":
        for probe in document["providers"]:
            yield f"{probe['name']}: {probe['detail']}"
    elif name.endswith("self-test"):
        yield (
            f"image cosine {document['smallest_cosine']:.5f}, KL {document['kl_nats']:.2g} nats, "
            f"{document['greedy_equal']} of {document['steps']} tokens equal"
        )
    elif name.endswith("benchmark"):
        for row in document["rows"]:
            yield _benchmark_row(row)
    elif name.endswith("triage"):
        yield f"urgency {document['urgency']}"
    elif name == "torch":
        for row in document["rows"]:
            bandwidth = row["bytes"] / row["median_s"] / 1e9
            rate = row["flop"] / row["median_s"] / 1e12
            yield (
                f"{row['name']:12} {row['median_s'] * 1e3:9.2f} ms {bandwidth:7.0f} GB/s "
                f"{rate:7.1f} TFLOP/s"
            )


def _benchmark_row(row: dict[str, Any]) -> str:
    if row["latency"] is None:
        return f"{row['name']:12} {row['reason']}"
    line = f"{row['name']:12} {row['latency']['median_s'] * 1e3:9.2f} ms"
    if row["ceiling"]:
        line += f" {row['ceiling']['fraction']:5.0%} of {row['ceiling']['bound']}"
    return line

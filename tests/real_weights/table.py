"""The one table that `make real-weights` prints at its end."""

ROWS: list[tuple[str, str, str, str, str]] = []
"""What was measured, KL mean / median, top-1, perplexity or other figure, bound."""

HEAD = ("measured", "KL mean / median, nats", "top-1", "perplexity", "bound of the KL")


def add_row(name: str, kl: str, top1: str = "", perplexity: str = "", bound: str = "") -> None:
    """Remember a line for the end."""
    ROWS.append((name, kl, top1, perplexity, bound))


def markdown() -> list[str]:
    """Lines of the table."""
    return [f"| {' | '.join(row)} |" for row in (HEAD, ("---",) * len(HEAD), *ROWS)]

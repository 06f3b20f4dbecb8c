"""The same scans answered twice: whether the answers differ by more than chance."""

from edge_medgemma.calibration.statistics.binomial import binomial_cdf


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Two-sided p of so uneven a split of the discordant pairs (McNemar 1947, exact binomial).

    1 where nothing is discordant.
    """
    discordant = first_only + second_only
    return min(1.0, 2 * binomial_cdf(min(first_only, second_only), discordant, 0.5))

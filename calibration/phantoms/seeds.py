"""Seeds of the phantoms by purpose: no seed serves two purposes."""

TRAINING_SEEDS = range(1_000_000)
LANGUAGE_FIRST_SEED = 500_000
"""Training seeds from here on teach the language model; those below the vision tower."""
PLATT_FIRST_SEED = 2_000_000
"""Progress reports and the Platt maps."""
DOMAIN_FIRST_SEED = 2_500_000
"""What the demo engine is calibrated on: scans that must be like those that it was trained on."""
EVALUATION_FIRST_SEED = 3_000_000
"""Measured only; nothing is ever fitted to them."""

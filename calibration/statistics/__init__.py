"""Statistics of predictions against a reference standard, in numpy alone."""

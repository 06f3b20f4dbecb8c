"""Studies, their states and results, and who acknowledged them."""

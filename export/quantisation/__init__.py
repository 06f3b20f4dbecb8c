"""The format of every weight, and the searches behind it."""

"""Whether a box works: each check gives a line that says what was found and what to do about it."""

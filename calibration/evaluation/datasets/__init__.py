"""One module for each layout in which a public dataset lies on disk."""

"""From a folder, an archive or one file to a list of files."""

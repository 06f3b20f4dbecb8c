"""What an engine is worth on labelled scans."""

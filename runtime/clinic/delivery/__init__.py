"""Results on their way to archives and health records."""

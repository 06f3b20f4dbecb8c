"""Planning and measuring of host and device memory."""

"""What an engine has to answer on a device before the device is trusted."""

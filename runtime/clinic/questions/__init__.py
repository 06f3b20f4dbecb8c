"""Questions of people to the engine, from one process to the other."""

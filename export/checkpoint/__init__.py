"""Reading a checkpoint, or making one of random weights."""

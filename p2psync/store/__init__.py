"""Floor 3: the disk, in plain blocking Python."""

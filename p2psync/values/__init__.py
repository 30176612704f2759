"""Floor 1: pure values. Nothing here reads a file, a clock or a socket."""

"""Floor 6: the command line, a client of the status socket."""

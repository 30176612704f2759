"""Floor 4: where trio meets the world: sockets, threads, watchers, discovery."""

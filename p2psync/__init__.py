"""p2psync keeps the accounting files of a small office the same on every machine that works on them."""

__version__ = "0.1.0"

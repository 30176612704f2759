"""Floor 2: decisions. Bytes and values in, values out; time and randomness are arguments."""

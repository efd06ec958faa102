"""Check owners, modes and paths on this machine."""

"""Back up SQLite databases."""

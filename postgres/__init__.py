"""Back up and restore PostgreSQL."""

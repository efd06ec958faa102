"""Results for people and for report servers."""

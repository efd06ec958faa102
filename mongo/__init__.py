"""Back up MongoDB."""

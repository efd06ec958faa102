"""Back up files and folders."""

"""Back up and restore MySQL and MariaDB."""

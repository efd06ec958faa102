"""What everything else stands on: errors, results, secrets, the log."""

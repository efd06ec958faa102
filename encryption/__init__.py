"""Encryption: age and the old OpenSSL format."""

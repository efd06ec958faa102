"""Back up OpenLDAP."""

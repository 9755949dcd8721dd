"""The installation in a Debian of its own."""

"""Model configurations: plain attributes, read from and written to config.json (no torch here)."""

"""Weights on disk: headers, plans, loading, saving with one commit point, and verification."""

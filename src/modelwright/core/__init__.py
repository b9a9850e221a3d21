"""Errors, logging, optional imports and registries: the room that everything else stands on (standard library only)."""

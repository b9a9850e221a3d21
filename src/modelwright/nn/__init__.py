"""Layers and layer surgery that are not attention."""

"""The base class of all models: loading, saving, initialisation, tying, dtypes and the small module utilities."""

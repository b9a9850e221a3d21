"""Text to token ids and back: the base classes, padding, truncation, and the tokenizers that belong to no model."""

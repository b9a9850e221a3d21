"""Training: a language-model loop over `accelerate` on memory-mapped text, with checkpoints that resume exactly."""

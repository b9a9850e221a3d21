"""Attention: kernels behind one contract, the registry that names them, masks, rotary positions and caches."""

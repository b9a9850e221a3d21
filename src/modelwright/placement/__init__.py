"""Which device holds which part of a model: device maps, and dispatch and offload over `accelerate`."""

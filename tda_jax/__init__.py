"""Training-data attribution for text-to-music diffusion by unlearning, in JAX."""

__version__ = "0.1.0"

"""Flax Linen ports of the networks of text-to-music latent diffusion."""

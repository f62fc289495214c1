"""Noisette: a bench for image and video diffusion."""

__version__ = "0.1.0"

"""Families of models, wrapped once each: what the networks of a checkpoint mean."""

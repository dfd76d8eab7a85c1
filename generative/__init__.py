"""Generative models as pure functions: data, metrics and one file per model."""

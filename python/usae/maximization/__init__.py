"""Coordinated activation maximization: images that are optimised so that a network fires a concept."""

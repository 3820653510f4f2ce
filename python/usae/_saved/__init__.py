"""Saved autoencoders: what lies in their folder."""

"""Saved autoencoders: the files in their folder."""

"""Helpers for files: atomic writes, locks, and the wording of errors."""

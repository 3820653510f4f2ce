"""Helpers that do not depend on autoencoders: checks of arguments, settings of the process, progress bars, JSON."""

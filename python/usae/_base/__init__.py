"""What knows nothing of autoencoders: checks of arguments, settings of the process, progress bars, JSON."""

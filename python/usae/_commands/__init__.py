"""What the command ``usae`` does, a module for each of its commands that is more than a few lines."""

"""The main class, `usae.UniversalSAE`, with the codes it returns and the checkpoints it writes."""

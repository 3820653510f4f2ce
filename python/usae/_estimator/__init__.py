"""The class that everybody meets, `usae.UniversalSAE`, with what it takes and gives."""

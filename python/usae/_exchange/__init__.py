"""Exchange with other libraries: their files, written from an autoencoder and read, and the Hugging Face Hub."""

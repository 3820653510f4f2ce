"""The concept explorer: a page for a browser that shows every concept of an autoencoder, without a server or a network."""

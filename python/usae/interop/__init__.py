"""Exchange with others: files of the published code and of other libraries, and the Hugging Face Hub."""

"""Files as such: folders that are written whole, and words for what goes wrong with them."""

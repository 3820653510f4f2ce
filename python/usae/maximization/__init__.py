"""The image that each network wants to see for a concept."""

"""The formats of other libraries, a module for each: what is written for them, and what is read of theirs."""

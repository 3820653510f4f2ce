"""One module for each table; each has TITLE and `measure(run, report)`."""

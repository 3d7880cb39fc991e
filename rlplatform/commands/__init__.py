"""One module for each group of CLI commands."""

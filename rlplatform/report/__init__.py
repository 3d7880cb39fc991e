"""Statistics and tables over runs."""

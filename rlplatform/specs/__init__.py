"""What is asked for: pydantic only."""

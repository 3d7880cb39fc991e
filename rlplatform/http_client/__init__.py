"""What the Python client is made of; `rlplatform.client` is its face."""

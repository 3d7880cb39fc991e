"""Environments: catalog, construction, vector backends, exact state."""

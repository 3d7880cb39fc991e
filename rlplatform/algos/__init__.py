"""Algorithms: catalog and construction."""

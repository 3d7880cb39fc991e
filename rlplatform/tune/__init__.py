"""Searches: many runs of one spec, over a space of its parameters, on Ray Tune."""

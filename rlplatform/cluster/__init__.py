"""Ray: the only place that starts it, run actors, the run manager."""

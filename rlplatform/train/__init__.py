"""Training: session, trainer, evaluation, metrics."""

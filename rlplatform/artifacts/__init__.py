"""What lies on disk: atomic writes, run folders, checkpoints."""

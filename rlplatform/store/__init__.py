"""What the platform remembers: experiments, models, keys and the audit log, in SQLite or PostgreSQL."""

"""Empty jobs."""

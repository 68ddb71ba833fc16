"""The pages of declared jobs."""

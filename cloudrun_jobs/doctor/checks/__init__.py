"""The checks: each yields the findings of one kind, or of a few that one fact decides."""

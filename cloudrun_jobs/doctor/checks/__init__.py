"""The checks: each yields the findings of one id, or of a few that depend on the same fact."""

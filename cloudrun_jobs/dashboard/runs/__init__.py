"""The pages of recorded runs."""

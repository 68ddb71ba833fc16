"""The records of the runs: one contract for each database that may keep them."""

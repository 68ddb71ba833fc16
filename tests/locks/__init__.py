"""The promise of the locks, against real servers."""

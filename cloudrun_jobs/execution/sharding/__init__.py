"""Divide the items of a run among its tasks: `shard()`, `claim()` and `item()`."""

"""Share out the items of a run among its tasks."""

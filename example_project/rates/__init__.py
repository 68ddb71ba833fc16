"""Euro reference rates: collected by a job, shown on a page."""

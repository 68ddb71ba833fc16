"""The ingest API: a market's daily data, requested over HTTP."""

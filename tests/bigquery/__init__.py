"""The example's export of BigQuery tables: `make test-bigquery`, with the clients and servers it needs."""

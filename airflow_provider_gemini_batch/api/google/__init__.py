"""Google's own services beside the batch service: the Files API, Cloud Storage, BigQuery."""

"""Rows in, rows out: reading, checking and staging input; landing results, usage and cost. No Airflow, no network."""

"""Rows in, rows out: reading, checking and staging input; landing result rows, usage and cost. Without Airflow."""

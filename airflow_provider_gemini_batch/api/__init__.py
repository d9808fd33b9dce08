"""The client of the batch service, free of Airflow and usable in a REPL."""

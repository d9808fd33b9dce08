"""Decisions about jobs: names, adoption, waiting, endings. Values in, values out; no Airflow here."""

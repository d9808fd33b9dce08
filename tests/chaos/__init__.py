"""Breaking things on purpose in a real Airflow; ``python -m tests.chaos --help``."""

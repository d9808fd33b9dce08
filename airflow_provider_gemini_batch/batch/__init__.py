"""One task's batch, from its first job to its verdict. Pure decisions over ports: no clock, no network, no Airflow."""

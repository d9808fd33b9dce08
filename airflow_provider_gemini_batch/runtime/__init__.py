"""Where Airflow meets the batch. Loaded only when a task, a sensor or a trigger runs."""

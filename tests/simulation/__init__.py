"""A whole life of one task, simulated: the product's decisions, a made-up service, a little Airflow, one seed."""

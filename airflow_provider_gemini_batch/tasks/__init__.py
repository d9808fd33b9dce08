"""What a create operator does when it runs in a worker. A Dag file loads none of it."""

"""The page "Gemini batches": what people see of all batches of this Airflow.

It reads Airflow's database, and nothing else: task instances, their XComs and runs. It calls neither the batch service
nor a worker, so it needs no credentials. ``app`` has the routes, ``access`` who may see what, ``queries`` the SQL,
``batches`` and ``costs`` turn rows into what is shown, ``charts`` draws, ``texts`` puts numbers into words.

Every Airflow process loads this module with :mod:`..plugin`, so it holds only the two names that both need.
"""

MOUNT = "/gemini-batches"
"""Where the page is served, below Airflow's own address. The files of the page name each other relative to it."""

ROUTE = "gemini-batches"
"""Where Airflow shows the page inside its frame: ``/plugin/<ROUTE>``."""

"""A dataset on CeleryExecutor with several workers and triggerers, of which some are killed: ``make scale``."""

"""Measurements of what the provider costs, next to what others cost: ``python -m benchmarks``."""

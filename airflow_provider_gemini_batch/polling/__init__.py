"""Waiting for jobs, one or ten thousand: how often to ask, what an answer means, and when a wait is over."""

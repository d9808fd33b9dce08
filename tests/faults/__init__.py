"""Faults planted into a copy of the code: for each guarantee one that its test must catch."""

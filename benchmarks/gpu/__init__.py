"""One command that checks and measures a GPU within a budget of seconds; see run.py."""

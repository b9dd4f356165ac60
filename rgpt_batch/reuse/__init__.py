"""Scores of an earlier job for a new one."""

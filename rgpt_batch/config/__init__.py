"""The configuration of a job."""

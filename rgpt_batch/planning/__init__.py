"""From rows to units, and what identifies a job."""

"""From scores to a ranking, and from a ranking to a number."""

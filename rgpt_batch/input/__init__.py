"""From a Parquet row to a ScorePair."""

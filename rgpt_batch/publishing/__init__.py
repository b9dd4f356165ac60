"""Complete outputs → tables that others read: Delta Lake, Iceberg, Hive-partitioned Parquet.

A table's rows of a job are told by the column `fingerprint`. Publishing makes them those of the
output: all of them in one step, or none.
"""

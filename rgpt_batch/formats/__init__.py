"""Formats of other tools: TREC runs and qrels, BEIR, ir_datasets."""

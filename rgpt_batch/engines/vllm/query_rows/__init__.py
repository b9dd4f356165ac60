"""Logits for the query's rows alone: a pooling model, its scheduler, and the engine."""

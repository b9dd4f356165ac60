"""Engines that run on vLLM; the only modules that import it."""

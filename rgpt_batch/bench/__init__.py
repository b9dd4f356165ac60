"""Throughput benchmarks: every way to the score in one run, interleaved, as ratios with spread."""

"""Triton's kernels on CPU, for tests: with TRITON_INTERPRET=1 Triton runs them in numpy.

vLLM's model runner V2 is made of Triton kernels and asks for a backend named cpu. With this folder
in PYTHONPATH it finds one. Interpreted kernels are slow, but the same code as on a GPU.
"""

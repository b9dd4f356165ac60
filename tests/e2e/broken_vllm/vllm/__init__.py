"""A vLLM that prints why it cannot be imported, and raises something that does not say it."""

import os

os.write(1, b"NOISE: asked https://user:canary-7f3a@host/ for devices\n")
os.write(2, b"NOISE: no device was found\n")
raise RuntimeError("Engine core initialization failed. See root cause above.")

"""From a pair to a prompt, and from logprobs to a score."""

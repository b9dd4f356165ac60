"""From checkpoints that no engine loads to folders that all of them load.

convert.py walks the line: layouts say what a source must hold and what becomes of it, weights.py
reads it tensor by tensor, tokenizers.py makes a tokenizer.json, target.py writes and publishes.
"""

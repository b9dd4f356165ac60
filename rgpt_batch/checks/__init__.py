"""Is the output right?"""

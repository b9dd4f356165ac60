"""Commands of the command line, one module for each group; cli.py registers them."""

"""Allow `python -m rgpt_batch`."""

from rgpt_batch.cli import main

main()

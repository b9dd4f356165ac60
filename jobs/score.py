"""`rgpt-batch score` as a script, for `ray job submit -- python jobs/score.py --config …`."""

import sys

from rgpt_batch.cli import main

if __name__ == "__main__":
    main(["score", *sys.argv[1:]])

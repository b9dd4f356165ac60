"""The main job as a script, for `ray job submit -- python jobs/score.py …`."""

from rgpt_batch.cli import main

if __name__ == "__main__":
    main()

"""The main job: plan, score, commit, finish."""

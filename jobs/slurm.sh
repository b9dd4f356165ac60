#!/usr/bin/env bash
#SBATCH --job-name=rgpt-batch
#SBATCH --array=0-15
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
#
# A Slurm array whose tasks share one job, each with a GPU of its own:
#
#     sbatch --array=0-31 jobs/slurm.sh configs/bloom-560m.yaml /shared/pairs /shared/scored
#
# Any number of tasks may run at any time: they agree through the output folder alone, so that it has
# to be on a file system that all nodes share, or in an object store. A task that is preempted or
# killed is requeued, or not: the others score its units. Further arguments go to `score`.
set -euo pipefail
config=$1 input=$2 output=$3

# In the place of this shell, so that Slurm's SIGTERM reaches the command itself.
exec rgpt-batch score --config "$config" --input "$input" --output "$output" \
    --executor local --join "${@:4}"

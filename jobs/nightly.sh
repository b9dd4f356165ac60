#!/usr/bin/env bash
# Nightly rescoring, for cron or a scheduler's shell step:
#
#     jobs/nightly.sh configs/bloom-560m.yaml /data/pairs/2026-11-23 /data/scored/2026-11-23 \
#         /data/scored/2026-11-22
#
# A night's output has a folder of its own. An interrupted night goes on where it stopped when the
# script is run again; readers wait for _SUCCESS. The fourth argument, which may be left out, is the
# output of the night before: pairs whose texts have not changed get their scores from there.
set -euo pipefail
config=$1 input=$2 output=$3 previous=${4:-}

code=0
rgpt-batch score --config "$config" --input "$input" --output "$output" \
    ${previous:+--reuse "$previous"} || code=$?
case $code in
    0) rgpt-batch verify "$output" ;;
    3) echo "finished with failures; see $output/_rgpt/failed and: rgpt-batch status $output" >&2 ;;
    130 | 143) echo "stopped; the same command resumes" >&2 ;;
    *) echo "failed with exit code $code; nothing that was committed is lost" >&2 ;;
esac
exit "$code"

#!/bin/sh
# Does this installation work? The doctor, a little of the default plan, its report; a minute or two, no network.
#
#   docker/smoke.sh                                   trains one small backbone and benches it on the CPU
#   docker/smoke.sh test_resnet --runtime ort-cuda    the same on something else: any arguments of `bobrt bench`
#   docker/smoke.sh BUNDLE                            a bundle, where there is no PyTorch
#
# Works in an image and outside one. Leaves nothing behind. A run in which no cell is complete is a failure.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
BOBRT_CACHE="$work/cache"
BOBRT_RESULTS="$work/results"
HF_HUB_OFFLINE=1
export BOBRT_CACHE BOBRT_RESULTS HF_HUB_OFFLINE

[ $# -gt 0 ] || set -- test_resnet --runtime ort-cpu --precision fp32
bobrt doctor
bobrt bench "$@" --limit 100 --repeat 1
bobrt report
# A cell that this machine cannot run is no error of the bench's, and no proof that anything works.
bobrt report --json | python3 -c '
import json, sys
sys.exit(all(result["state"] != "complete" for result in json.load(sys.stdin)["results"]))
' || {
    printf 'error: no cell is complete of: bobrt bench %s; the report above says why\n\nhint: bobrt doctor\n' "$*" >&2
    exit 3
}

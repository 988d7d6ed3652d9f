"""What a reader must know beside a number: each caveat with its cause and its remedy."""

from __future__ import annotations

from typing import NamedTuple


class Caveat(NamedTuple):
    """Cause and remedy of one caveat."""

    text: str
    remedy: str


CAVEATS = {
    "limited": Caveat(
        "accuracy is over a part of the test split, so the row is not ranked",
        "run the same command without --limit",
    ),
    "busy-machine": Caveat(
        "other processes used the CPU while this row was timed",
        "stop them and run again with --rerun",
    ),
    "stolen-cpu": Caveat(
        "the hypervisor took CPU time away while this row was timed",
        "use a machine with cores of its own",
    ),
    "cpu-quota": Caveat(
        "a CPU quota of its container or cgroup stopped the process now and then while this row was timed",
        "raise the quota, or set threads in the plan's [timing] to no more cores than it gives",
    ),
    "clocks-moved": Caveat(
        "the clock of the CPU or GPU moved by more than 10 % while this row was timed",
        "fix the clocks (CPU: the governor performance; GPU: nvidia-smi -lgc) and run again with --rerun",
    ),
    "gpu-throttled": Caveat(
        "the GPU lowered its clocks for heat or power while this row was timed; the record names the reason",
        "cool it, raise its power limit or fix lower clocks (nvidia-smi -lgc), and run again with --rerun",
    ),
    "gpu-shared": Caveat(
        "other processes computed on the same GPU while this row was timed",
        "stop them (nvidia-smi lists them) and run again with --rerun",
    ),
    "few-samples": Caveat(
        "too few independent samples for an interval of the median",
        "raise min_s or min_n in the plan's [timing]",
    ),
    "few-rounds": Caveat(
        "timed in fewer than three rounds, so its error bar does not hold what differs between processes",
        "run the same command with --repeat 3",
    ),
    "unstable": Caveat(
        "its rounds differ by more than 10 %, the machine's own drift counted in, so the row is not ranked",
        "quieten the machine, fix its clocks, and run again with --rerun",
    ),
    "never-steady": Caveat(
        "its times were not steady when the longest warm-up was over",
        "raise warmup_s in the plan's [timing]",
    ),
    "slows-down": Caveat(
        "within a round it became more than 10 % slower: heat, a filling cache or a leak",
        "raise min_s in the plan's [timing] to see where it settles",
    ),
    "search-edge": Caveat(
        "what was searched for this checkpoint ended at the first or last value of its list",
        "widen that list in the plan's [search]; a probe's strengths are fixed, from 3e-4 to 100",
    ),
    "drop-unjudged": Caveat(
        "what eight bits lose was not looked at when its file was made, and no block was kept out of them: "
        "retrieval has no validation images",
        "compare it with the fp32 row of the same backbone",
    ),
    "precision-unread": Caveat(
        "its runtime does not tell in which precision it computes, so the row goes by what its file says",
        "bench the same file on a runtime that does: tensorrt in place of ort-trt",
    ),
    "not-renewed": Caveat(
        "it was asked again and could not be measured, as its notes say; its numbers are those of before",
        "mend that, and run the same command again",
    ),
    "no-reference": Caveat(
        "nothing to compare with: the checkpoint this file came from is not known here",
        "bench the backbone by name, so that bobrt makes the file from its checkpoint",
    ),
}

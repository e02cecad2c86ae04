"""A run is a folder. This room writes and reads it, and knows nothing of torch.

config.json            all settings, versions and the seed; written first
metrics.jsonl          what was learned, a line a report: decided by seed and settings alone
timing.jsonl           clock times and steps per second
warnings.jsonl         what the watchdog said, where it said something
checkpoints/N/         what the agent was after N steps, complete or absent (see checkpoints.py)
checkpoints/best/      the best by evaluation, where there is any
checkpoints/aside-N/   one that was broken, and is in the way of what a resumed run will write
profile.json           where the time went, if it was asked for
curve.png              at the end
"""

from covary.runs.checkpoints import FORMAT, read_checkpoint, write_checkpoint
from covary.runs.files import read_json
from covary.runs.finding import find_checkpoint, newest_checkpoint
from covary.runs.folder import KEPT, Run
from covary.runs.tensorfile import Arrays, not_finite

__all__ = [
    "FORMAT",
    "KEPT",
    "Arrays",
    "Run",
    "find_checkpoint",
    "newest_checkpoint",
    "not_finite",
    "read_checkpoint",
    "read_json",
    "write_checkpoint",
]

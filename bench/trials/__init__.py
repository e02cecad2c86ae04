"""What a run is put through; each module has `run(n, seed)`, which yields rows of what was seen."""

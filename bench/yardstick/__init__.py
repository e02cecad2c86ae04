"""What `bench/overhead.py` measures, and how: workloads, the stopwatch, the systems, the goals and the tables."""

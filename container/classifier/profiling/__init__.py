"""Profiler: samples of system utilization and step times, and the rules that evaluate them."""

"""Measurements: each module is one command (`python -m bench.NAME`) that writes `bench/results/NAME.json`."""

"""Parts of `benchmarks/benchmark.py`: the peer, the rows, the measures and their growth."""

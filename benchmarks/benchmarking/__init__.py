"""Parts of `ci/benchmark.py`: the sizes, the peer, what is measured and the machine's limit."""

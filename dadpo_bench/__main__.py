"""`python -m dadpo_bench` is `dadpo-bench`."""

from dadpo_bench.cli import main

main()

"""`python -m k2cli`: the same as `k2`."""

from k2cli.main import main

main()

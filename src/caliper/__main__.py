"""`python -m caliper` is the command `caliper`."""

from caliper.cli import main

main()

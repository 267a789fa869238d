"""`python -m nhood`."""

from nhood.cli import main

main()

"""`python -m nodedev`."""

from nodedev.cli import main

main()

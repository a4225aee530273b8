"""`python -m anytime_model.cli`: the command without its script."""

from anytime_model.cli.app import main

main()

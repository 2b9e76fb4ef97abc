"""``python -m cvretrieval.cli``."""

from cvretrieval.cli.main import main

main()

"""``python -m cvretrieval`` is the command line, for when its script is not on the path."""

from cvretrieval.cli.main import main

if __name__ == "__main__":
    main()

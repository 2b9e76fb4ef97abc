"""The command line: thin commands over the Python interface; heavy imports happen inside the commands."""

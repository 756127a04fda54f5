"""The command line; main.py is its door, every other file is one command."""

"""The `modelwright` command: one file per subcommand, put together in main.py."""

"""The command line, `pocket-dock`: parses, calls and shows. A command is one module; see `main.COMMANDS`."""

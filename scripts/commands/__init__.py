"""What all commands share: their exit codes, and Ctrl-C."""

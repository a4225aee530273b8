"""The subcommands of `anytime`, one file each."""

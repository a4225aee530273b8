"""The subcommands of `anytime-model`, one a module; `cli` registers them."""

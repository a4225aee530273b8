"""Networks that predict dense maps at several exits, in families."""

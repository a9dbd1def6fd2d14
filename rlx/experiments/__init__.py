"""What the papers did, each a function from a config to a result."""

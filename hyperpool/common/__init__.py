"""hyper's import paths for what both versions share: other names for rooms of hyperpool."""

"""hyper's import paths for HTTP/2: other names for what lives in `hyperpool.connection` and beside it."""

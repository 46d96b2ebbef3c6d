"""hyper's import paths for HTTP/1.1: other names for what lives in `hyperpool.connection` and beside it."""

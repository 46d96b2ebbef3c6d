"""Seeded, bounded programs with real threads, sockets and servers; for tests, for judging changes, not for users."""

"""`srghn bench solve`: CPU-seconds until a world is solved, with peers at published settings."""

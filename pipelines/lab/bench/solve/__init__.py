"""`srghn bench solve`: CPU-seconds until a world is solved, beside peers at published settings."""

"""`srghn bench serve`: this server against the bare protocol, a constant, and MLflow's server."""

"""`srghn bench serve`: compares this server with the bare protocol, a constant, and MLflow's."""

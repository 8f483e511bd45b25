"""Sources of inference requests, one module a kind."""

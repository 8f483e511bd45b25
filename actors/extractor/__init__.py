"""The extractor: from an instance on disk to a described instance. It keeps no state."""

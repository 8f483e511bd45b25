"""The API: REST for people and programs, health, metrics; it owns AE titles, sources, destinations and pipelines."""

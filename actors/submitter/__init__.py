"""Platform submission: takes the processor's jobs over and walks each one to its start on the platform."""

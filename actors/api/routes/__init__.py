"""The REST resources, one file each: thin handlers that turn requests into calls and answers into JSON."""

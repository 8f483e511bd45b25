"""The guardian: watches the disk, pauses and resumes intake, and reclaims what is done with."""

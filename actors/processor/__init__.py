"""Job processors at work: described instances become groups, closed groups become jobs."""

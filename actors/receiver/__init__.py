"""Storage and Verification SCP: from an association to instances in the spool."""

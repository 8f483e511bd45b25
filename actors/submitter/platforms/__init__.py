"""The platforms that jobs can be submitted to, behind one small interface."""

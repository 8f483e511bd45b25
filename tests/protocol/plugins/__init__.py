"""Tests of what job processors of other packages run in."""

"""Where export tasks come from, and where their outcomes are told: results services behind one small interface."""

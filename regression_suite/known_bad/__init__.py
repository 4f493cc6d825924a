"""Candidates that a gate must refuse, made from one that passed, in its own environment."""

"""Attacks on face recognizers."""

"""Stages that end in every way."""

"""Runs on disk: records, checkpoints, folders."""

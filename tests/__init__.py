"""Tests of the packages, one folder for each."""

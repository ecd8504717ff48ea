"""Measurements -> calibration file."""

"""Measure, keep, compare, show: accuracy and speed of the same file become one result."""

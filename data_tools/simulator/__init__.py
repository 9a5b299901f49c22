"""Simulated cell videos."""

"""The report of sweeps: tables and figures as one page."""

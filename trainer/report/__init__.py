"""Pictures, figures and pages of one run."""

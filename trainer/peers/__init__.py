"""The methods that the tables set beside ours."""

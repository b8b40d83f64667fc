"""`caliper view`: a policy, a dataset or one's own hands on the keyboard, in the browser."""

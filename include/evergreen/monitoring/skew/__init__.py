"""Whether online predictions are those that a batch makes of the same rows."""

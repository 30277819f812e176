"""Online predictions: the prediction service, which answers requests with the champion."""

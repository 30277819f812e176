"""An exporter of Prometheus metrics: what the ledger says of models, datasets and mails, read at each scrape.

`evergreen exporter` serves them. It reads, and needs no other right than SELECT on `questions.TABLES`. A value that is
not known has no series, and where the warehouse does not answer there is `evergreen_warehouse_up 0` and nothing else.
"""

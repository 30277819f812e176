"""The loop over past time, under several retraining policies, without Airflow and without a row in the live ledger.

What decides is what decides live: the feature query as of a time, split, fit, evaluation and gate, the reference and its
limits, the judgement of a window, the trigger policy, the watch after a promotion. What stores is other: a replayed policy
keeps its champion, decisions, judgements and predictions in memory and in a folder of its own.

A policy's clock stands at the ends of its windows (`monitoring.window`). At each it scores what has arrived, judges what is
due, looks at a new champion, decides, and trains if the policy says so; the new champion serves from then on.
"""

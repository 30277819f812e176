"""What a change of the specs means before it is merged: `python -m evergreen.check --changed BASE`."""

"""What a change of the specs means before it is merged: `evergreen check --changed BASE`."""

"""What a person reads and does at a terminal: a file for each command, and how text is laid out there."""

"""What a person sees of models, datasets and the stack: read from the warehouse for pages and the terminal. Nothing here decides or writes."""

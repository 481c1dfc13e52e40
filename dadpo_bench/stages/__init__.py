"""The stages of `run`: each asks the store what is owed, has it worked on, and writes what comes back."""

"""Judges: `entries` registers them; each is a backend with, for `chat`, a template and a verdict parser."""

"""Judging the judge: what it said, labelled pairs, canaries, and how far it can be trusted."""

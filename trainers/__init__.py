"""Training methods over one loop: `entries` registers them, each is one short file, `loop` trains them all."""

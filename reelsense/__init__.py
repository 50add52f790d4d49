"""What others import of ReelSense: `reelsense.client`, which talks to its HTTP API."""

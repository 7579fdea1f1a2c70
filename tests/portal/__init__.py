"""The portal as an operator runs it: its own processes, several workers, reached over HTTP."""

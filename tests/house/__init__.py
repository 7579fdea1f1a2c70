"""Rules that hold for the whole house, kept by tests so that they need no memory."""

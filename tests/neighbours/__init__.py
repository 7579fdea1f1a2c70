"""Real servers that the tests start themselves: provider, Valkey, PostgreSQL, browser and the portal."""

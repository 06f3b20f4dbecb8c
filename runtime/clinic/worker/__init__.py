"""The process that holds the engine and triages what waits."""

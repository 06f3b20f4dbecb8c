"""`edge-medgemma clinic`: one file a command, imported when it is asked for."""

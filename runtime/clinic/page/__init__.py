"""The web page and the API of the clinic's box."""

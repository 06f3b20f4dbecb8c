"""Who may use the page and the API: people, programs, and what is refused."""

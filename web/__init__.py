"""The web page: what it shows, where uploads lie, and what it lets in."""

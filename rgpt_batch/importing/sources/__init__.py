"""What a search engine or a collection leaves, as three relations."""

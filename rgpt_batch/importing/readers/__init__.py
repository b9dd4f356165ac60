"""Files of ids and texts, whatever their format, as tables."""

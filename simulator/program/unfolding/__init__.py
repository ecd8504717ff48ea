"""More representatives of a stage where ranks differ."""

"""Classes of activities, described without figures, and what they cost with them."""

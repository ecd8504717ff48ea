"""What a plan comes to: degrees, layers of each stage, precisions; checked, and without figures."""

"""One pass of one stage as a template: recomputation, gathers, reductions, what leaves and comes back."""

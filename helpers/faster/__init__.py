"""Lesson 13: where the time of a training step goes, and what makes it less without changing a gradient.

`batches` decides which tokens a step reads (padding, grouping, packing), `steps` how it computes them, `profiling`
where its time went. `difference` of `steps` is the judge of them all: how far are the gradients from the plain ones?
"""

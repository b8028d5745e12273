"""A comparison of two datasets: rows joined by sample, boxes matched by IoU, and their shifts."""

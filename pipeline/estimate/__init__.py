"""Estimates of the work and the time of a job, with their uncertainty."""

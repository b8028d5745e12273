"""Annotation of images: the actor of a job, the stage for other pipelines, and shared code."""

"""Images -> annotations: the actor of a job, the stage for other pipelines, and what they share."""

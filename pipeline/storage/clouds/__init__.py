"""Object stores by obstore: reads of S3, and all requests to other clouds."""

"""Images: encoded bytes -> uint8 [3, 224, 224], or a typed error."""

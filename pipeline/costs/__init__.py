"""The time of actors: counted, limited, priced and estimated."""

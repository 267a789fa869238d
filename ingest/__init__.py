"""Events in over HTTP: verified, written to Kafka, answered only after the broker has them."""

"""What the service sends back: responses to requests, refusals, and the files that hold them."""

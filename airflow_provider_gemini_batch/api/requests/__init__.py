"""What a caller may hand over as a request, and the one form in which it is sent."""

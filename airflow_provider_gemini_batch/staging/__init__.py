"""How input gets to Google, and how it is removed afterwards."""

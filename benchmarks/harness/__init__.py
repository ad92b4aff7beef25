"""The benchmark: data sets, methods and protocols, what runs them and what reports on them."""

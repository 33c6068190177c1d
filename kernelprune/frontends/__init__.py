"""What fills a graph: one package for each kind of model that can be brought in."""

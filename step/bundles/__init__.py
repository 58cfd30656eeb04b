"""What a bundle is: its manifest, graphs, engines, and how its graphs follow each other."""

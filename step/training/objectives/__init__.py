"""What training minimises: detection and classification."""

"""AVA's videos and annotations: preparing, extracting, checking and loading them."""

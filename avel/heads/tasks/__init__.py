"""What a head is taught and how it is judged, for each kind of label."""

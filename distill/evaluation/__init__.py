"""Quality and diversity of a student's pictures, compared with its teacher's."""

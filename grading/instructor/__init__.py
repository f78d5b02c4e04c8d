"""What only an instructor needs: cutting the student edition, and grading what students hand in."""

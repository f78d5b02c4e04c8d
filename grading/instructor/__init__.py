"""What only an instructor needs: making the student edition, grading submissions, and testing the checks."""

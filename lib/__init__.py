"""The library of *Trained & Tested*: every technique of the course, built from scratch."""

"""Training: recipes, the loss over all exits, and a loop that can stop and go on anywhere."""

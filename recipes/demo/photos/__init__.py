"""What photographs are to the recipe: files, names, articles, wordings, turns, and their sets."""

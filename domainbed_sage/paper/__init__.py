"""What the suite finds when it computes the paper's claims again: its tables, its theorem, its figures, its cost."""

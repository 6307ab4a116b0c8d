"""Maths on weights and gradients: it knows no images, no domains, no configurations."""

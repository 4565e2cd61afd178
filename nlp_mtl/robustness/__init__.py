"""How scores hold when texts are changed: perturbations, and an attack that looks for the worst words."""

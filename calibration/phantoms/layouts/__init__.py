"""Labelled phantoms as public datasets lie on disk: one module for each kind of scan."""

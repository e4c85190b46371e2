"""Attacks on models that judge images: forgery detectors, liveness detectors, classifiers."""

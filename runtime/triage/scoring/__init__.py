"""Scores of findings: questions to the model, log-odds of its answers, baseline and evidence."""

"""Free text of an engine: answers, reports, refusals."""

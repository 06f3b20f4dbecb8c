"""Routes of the API: worklist, questions, uploads, DICOMweb and what OpenAI's clients call."""

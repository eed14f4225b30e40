"""Programs that make or measure things: reference clips, scores, timings."""

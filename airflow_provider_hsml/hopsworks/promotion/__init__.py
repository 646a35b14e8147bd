"""Promote model versions: plan a change, record it in the journal, apply it, and roll it back when it fails."""

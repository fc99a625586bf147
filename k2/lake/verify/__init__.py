"""Verification: folds the tape again and compares it with what the lake holds."""

"""Training of Le-DETR; imports ledetr and is never imported by it."""

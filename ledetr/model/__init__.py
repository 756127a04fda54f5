"""The network of Le-DETR (arXiv:2602.21010): EfficientNAT backbone, NAIFI hybrid encoder, D-FINE-style decoder."""

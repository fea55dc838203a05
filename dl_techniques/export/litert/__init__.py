"""What all LiteRT files share: operators, precisions, recipes of their quantizer."""

"""What the interaction log is claimed to bear, measured on a deployment of BlenderBot 3x's size."""

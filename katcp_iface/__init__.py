"""KATCP façade of the control plane: requests and sensors."""

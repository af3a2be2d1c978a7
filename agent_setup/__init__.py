"""What an agent machine needs: discovery of its hardware."""

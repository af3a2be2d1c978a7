"""The command line: sdp …."""

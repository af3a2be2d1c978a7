"""The programs that graphs consist of: receive, calibrate, write, image."""

"""The metadata writer: telescope state to the files that open a data set."""

"""Signal display: what an operator watches while the data flow."""

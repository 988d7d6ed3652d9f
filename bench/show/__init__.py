"""How results are shown: one file for each kind of table, one for each format."""

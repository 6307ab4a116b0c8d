"""How a dataset comes to its folder: download, unpack, arrange, rebuild, check."""

"""Getting a dataset into its folder: download, unpack, arrange, rebuild, check."""

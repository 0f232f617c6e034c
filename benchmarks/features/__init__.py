"""How much processor time features cost: the package against SQL and dataframes (protocol E)."""

"""The KKT system in symbols and its exact solutions in small cases."""

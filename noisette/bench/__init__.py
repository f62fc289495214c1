"""The research bench: sweeps into a store, measures, reports, reproduction."""

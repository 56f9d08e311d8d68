//! What the topology gives and where it routes.

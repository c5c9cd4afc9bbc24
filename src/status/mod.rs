//! The status of a tenant in memory: what it is now, and whether everybody who acted on the last one has finished.

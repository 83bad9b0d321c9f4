//! Beam's Job Service: jobs, artifacts, expansion.

//! Beam's external worker pool: starts, watches and stops SDK harnesses.

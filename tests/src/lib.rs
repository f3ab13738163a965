//! Harness of the Weir test suites.

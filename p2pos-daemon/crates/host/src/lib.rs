//! Finds, launches, supervises and serves plugins.

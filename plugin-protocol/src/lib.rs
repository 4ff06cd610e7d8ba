//! The localhost protocol between plugins and the daemon, and the Rust SDK for plugins.

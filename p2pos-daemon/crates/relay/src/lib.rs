//! Relay frames and policy: what a relay forwards without reading it.

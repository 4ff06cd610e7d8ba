//! Which addresses this machine has, and what could make it reachable.

//! Candidates and path choice: pure machines that decide which address to try, and when.

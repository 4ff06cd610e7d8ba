//! A long wire between two interfaces, in user space: delay, jitter, loss and rate.

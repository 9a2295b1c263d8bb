//! Two programs that take turns of some milliseconds.

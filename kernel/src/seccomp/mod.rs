//! Interception: the filter that a task lives under, and the descriptor through which its notifications arrive.

pub mod filter;
pub mod listener;

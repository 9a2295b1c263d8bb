//! How far a request is, and what it keeps until it is finished, whoever carries it out.

use crate::recorder::Begun;
use crate::shares::Share;
use crate::times::Times;

/// What goes with a request from its reading to its answer.
pub struct Progress {
    pub times: Times,
    /// Its place in the recording, if there is one.
    pub begun: Option<Begun>,
    pub share: Share,
}

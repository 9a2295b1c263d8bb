//! `on-server-exit`: what becomes of a sandbox whose server ends before it, as users choose it, by an option of `run` or for a
//! container.

use clap::ValueEnum;
use ringfence_sentry::server::OnServerExit;

/// What becomes of a sandbox whose server ends before it
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum WhenServerEnds {
    /// It ends, with status 125
    Kill,
    /// It goes on; every further request to the driver fails with EIO
    #[default]
    Fail,
    /// It goes on; what is open fails with EIO, and a new server serves what is opened from then on
    Restart,
}

impl From<WhenServerEnds> for OnServerExit {
    fn from(chosen: WhenServerEnds) -> OnServerExit {
        match chosen {
            WhenServerEnds::Kill => OnServerExit::Kill,
            WhenServerEnds::Fail => OnServerExit::Fail,
            WhenServerEnds::Restart => OnServerExit::Restart,
        }
    }
}

//! What `ringfence survey --out` has found, as far as it is looked at here.

use serde::Deserialize;

/// A survey. It has further fields, and later releases may add some.
#[derive(Clone, Debug, Deserialize)]
pub struct Survey {
    pub ringfence: String,
    pub driver: String,
    #[serde(default)]
    pub capabilities: String,
    #[serde(default)]
    pub gpus: Vec<String>,
    #[serde(default)]
    pub architectures: Vec<String>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub unreadable: u64,
    #[serde(default)]
    pub refused: Vec<Finding>,
}

/// Requests that a sandbox would refuse for one reason.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    pub reason: String,
    pub count: u64,
}

impl Survey {
    pub fn parse(text: &str) -> Result<Survey, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The program's name, without what it was given and where it lies.
    pub fn program(&self) -> &str {
        let first = self.command.first().map_or("unknown", String::as_str);
        first.rsplit('/').next().unwrap_or(first)
    }

    /// What a sandbox would refuse, a line each.
    pub fn lines(&self) -> Vec<String> {
        let refused = self.refused.iter().map(|finding| {
            let times = times(finding.count);
            format!("{}: {times}", finding.reason)
        });
        refused.collect()
    }
}

/// How often, in words.
pub fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        _ => format!("{count} times"),
    }
}

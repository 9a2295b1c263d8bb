//! What `ringfence survey --out` has found, as far as it is looked at here.

use serde::Deserialize;

use crate::refusals::Refusals;

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
    /// NVIDIA's name of the request, where there is one.
    pub name: Option<String>,
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
        self.refused.iter().map(Finding::line).collect()
    }
}

impl Finding {
    pub fn line(&self) -> String {
        format!("{}: {}", self.reason, times(self.count))
    }

    /// Whether the driver has refused so many requests of that name itself, in a run outside.
    pub fn is_refused_outside(&self, outside: &Refusals) -> bool {
        let name = self.name.as_deref();
        name.is_some_and(|name| outside.times(name) >= self.count)
    }
}

/// How often, in words.
pub fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        _ => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusals::By;

    #[test]
    fn what_the_driver_refuses_itself_is_told_by_name_and_number() {
        let finding = |name: Option<&str>| Finding {
            name: name.map(str::to_owned),
            reason: "A with parameters of 8 bytes".to_owned(),
            count: 2,
        };
        let mut outside = Refusals::default();
        let mut refuse = |name: &str, answer: &str| {
            outside.add(name.to_owned(), answer.to_owned(), By::Driver);
            let named = finding(Some("A")).is_refused_outside(&outside);
            (named, finding(None).is_refused_outside(&outside))
        };
        assert_eq!(refuse("B", "EINVAL"), (false, false));
        assert_eq!(refuse("B", "EINVAL"), (false, false));
        assert_eq!(refuse("A", "NV_ERR_INVALID_PARAM_STRUCT"), (false, false));
        assert_eq!(refuse("A", "EINVAL"), (true, false));
    }
}

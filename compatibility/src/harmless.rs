//! The reasons for which refusals do no harm (`harmless.toml`): a program asks, is refused, and does its work all the same.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    harmless: Vec<Group>,
}

/// Requests that are refused without harm for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    requests: Vec<String>,
    reason: String,
}

/// By request, why its refusal does no harm.
#[derive(Debug, Default)]
pub struct Harmless(BTreeMap<String, String>);

impl Harmless {
    /// Reads the file's text. A request stands in it once.
    pub fn parse(text: &str) -> Result<Harmless, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut reasons = BTreeMap::new();
        for group in file.harmless {
            let words: Vec<&str> = group.reason.split_whitespace().collect();
            let reason = words.join(" ");
            for request in group.requests {
                if reason.is_empty() {
                    return Err(format!("{request} has no reason"));
                }
                if reasons.insert(request.clone(), reason.clone()).is_some() {
                    return Err(format!("{request} is there twice"));
                }
            }
        }
        Ok(Harmless(reasons))
    }

    pub fn reason(&self, request: &str) -> Option<&str> {
        self.0.get(request).map(String::as_str)
    }

    /// The same of a line of a survey's, which has the request's name in brackets.
    pub fn reason_of_line(&self, line: &str) -> Option<&str> {
        let mut known = self.0.iter();
        let found = known.find(|(request, _)| line.contains(&format!("({request})")));
        found.map(|(_, reason)| reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_reason() {
        let group = |reason| format!("[[harmless]]\nrequests = ['A', 'B']\nreason = '{reason}'\n");
        let harmless = Harmless::parse(&group("it goes on")).expect("a file");
        assert_eq!(harmless.reason("B"), Some("it goes on"));
        assert_eq!(harmless.reason("C"), None);
        let line =
            |name| format!("control command 0x215 ({name}) with parameters of 8 bytes: once");
        assert_eq!(harmless.reason_of_line(&line("A")), Some("it goes on"));
        assert_eq!(harmless.reason_of_line(&line("AB")), None);
        let error = |text: &str| Harmless::parse(text).map(drop);
        assert_eq!(error(&group(" ")), Err("A has no reason".to_owned()));
        let twice = group("a") + &group("b");
        assert_eq!(error(&twice), Err("A is there twice".to_owned()));
    }
}

//! Why requests are refused inside of a sandbox, and whether programs do their work all the same (`reasons.toml`).

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    reason: Vec<Group>,
}

/// Requests that are refused for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    requests: Vec<String>,
    harmless: bool,
    text: String,
}

/// By request, why it is refused, as the table has it.
#[derive(Debug, Default)]
pub struct Reasons(BTreeMap<String, String>);

impl Reasons {
    /// Reads the file's text. A request stands in it once.
    pub fn parse(text: &str) -> Result<Reasons, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut reasons = BTreeMap::new();
        for group in file.reason {
            let words: Vec<&str> = group.text.split_whitespace().collect();
            let reason = match group.harmless {
                true => format!("Harmless. {}", words.join(" ")),
                false => words.join(" "),
            };
            for request in group.requests {
                if words.is_empty() {
                    return Err(format!("{request} has no reason"));
                }
                if reasons.insert(request.clone(), reason.clone()).is_some() {
                    return Err(format!("{request} is there twice"));
                }
            }
        }
        Ok(Reasons(reasons))
    }

    /// The reason for which a request of this name is refused.
    pub fn of(&self, request: &str) -> Option<&str> {
        self.0.get(request).map(String::as_str)
    }

    /// The same of a line of a survey's, which has the request's name in brackets.
    pub fn of_line(&self, line: &str) -> Option<&str> {
        let mut known = self.0.iter();
        let found = known.find(|(request, _)| line.contains(&format!("({request})")));
        found.map(|(_, reason)| reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(harmless: bool, text: &str) -> String {
        format!("[[reason]]\nrequests = ['A', 'B']\nharmless = {harmless}\ntext = '{text}'\n")
    }

    #[test]
    fn a_request_has_one_reason() {
        let reasons = Reasons::parse(&group(true, "It goes on.")).expect("a file");
        assert_eq!(reasons.of("B"), Some("Harmless. It goes on."));
        assert_eq!(reasons.of("C"), None);
        let line =
            |name| format!("control command 0x215 ({name}) with parameters of 8 bytes: once");
        assert_eq!(reasons.of_line(&line("A")), Some("Harmless. It goes on."));
        assert_eq!(reasons.of_line(&line("AB")), None);
        let error = |text: &str| Reasons::parse(text).map(drop);
        assert_eq!(error(&group(true, " ")), Err("A has no reason".to_owned()));
        let twice = group(true, "a") + &group(false, "b");
        assert_eq!(error(&twice), Err("A is there twice".to_owned()));
    }

    #[test]
    fn what_does_harm_is_not_called_harmless() {
        let reasons = Reasons::parse(&group(false, "It ends.")).expect("a file");
        assert_eq!(reasons.of("A"), Some("It ends."));
    }
}

//! Requests that were refused, and those that only inside were.
//!
//! A program that asks the driver for what it does not have is refused outside as well. What counts is what is refused inside
//! and not outside, or for another reason: by Ringfence, or by the driver to Ringfence's server, which has fewer rights than the
//! program's user.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Who has refused a request.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    Ringfence,
    Driver,
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Refusal {
    /// NVIDIA's name, or what is said of one without.
    request: String,
    /// The NV_STATUS, or the errno.
    answer: String,
    by: By,
}

/// Requests that were refused in one run, and how often.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: BTreeMap<Refusal, u64>,
    /// There were others, which are not known.
    pub incomplete: bool,
}

/// Requests that were refused inside and not outside.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Beyond {
    pub request: String,
    pub answer: String,
    pub by: By,
    pub times: u64,
    /// With what the same request was refused outside, where that was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Vec<String>>,
}

impl Refusals {
    pub fn add(&mut self, request: String, answer: String, by: By) {
        let refusal = Refusal {
            request,
            answer,
            by,
        };
        *self.counts.entry(refusal).or_default() += 1;
    }

    /// What was refused here and not outside. Where nobody has watched outside, what Ringfence has refused.
    pub fn beyond(&self, outside: Option<&Refusals>) -> Vec<Beyond> {
        let is_beyond = |refusal: &Refusal| match outside {
            Some(outside) => !outside.answers(&refusal.request).contains(&*refusal.answer),
            None => refusal.by == By::Ringfence,
        };
        let counts = self.counts.iter().filter(|(refusal, _)| is_beyond(refusal));
        counts
            .map(|(refusal, times)| Beyond {
                request: refusal.request.clone(),
                answer: refusal.answer.clone(),
                by: refusal.by,
                times: *times,
                outside: outside.map(|outside| {
                    let answers = outside.answers(&refusal.request);
                    answers.into_iter().map(str::to_owned).collect()
                }),
            })
            .collect()
    }

    /// The refusals in the text of a trace (`ringfence run --trace`).
    pub fn of_trace(text: &str) -> Result<Refusals, String> {
        let events = events(text)?;
        let mut refusals = Refusals::default();
        for event in events {
            match &*event.category {
                // A moment: something is missing.
                "" if event.form == "i" => refusals.incomplete = true,
                "request" => refusals.take(event),
                _ => {}
            }
        }
        Ok(refusals)
    }

    fn take(&mut self, event: Event) {
        let about = event.args;
        // A node that is not there is none outside either.
        if about.kind.as_deref() == Some("open") {
            return;
        }
        let is_errno = about.outcome.starts_with('E');
        let answer = match about.status {
            _ if is_errno => about.outcome,
            Some(status) if is_error(&status) => status,
            _ => return,
        };
        // What did not get to the driver has no length.
        let by = match about.payload {
            None => By::Ringfence,
            Some(_) => By::Driver,
        };
        self.add(event.name, answer, by);
    }

    /// How often a request of this name was refused.
    pub fn times(&self, request: &str) -> u64 {
        let of_it = self.counts.iter().filter(|(it, _)| it.request == request);
        of_it.map(|(_, times)| times).sum()
    }

    fn answers(&self, request: &str) -> BTreeSet<&str> {
        let of_it = self.counts.keys().filter(|it| it.request == request);
        of_it.map(|refusal| &*refusal.answer).collect()
    }
}

/// Whether the name of an NV_STATUS, or the number of one without, is an error's.
fn is_error(status: &str) -> bool {
    status != "NV_OK" && !status.starts_with("NV_WARN_")
}

/// An event of a trace, as far as it is looked at.
#[derive(Deserialize)]
struct Event {
    name: String,
    #[serde(rename = "ph")]
    form: String,
    #[serde(default, rename = "cat")]
    category: String,
    #[serde(default)]
    args: About,
}

#[derive(Default, Deserialize)]
struct About {
    kind: Option<String>,
    #[serde(default)]
    outcome: String,
    status: Option<String>,
    payload: Option<u64>,
}

/// The events of a trace. Its end may be missing, of a sandbox that was killed.
fn events(text: &str) -> Result<Vec<Event>, String> {
    let whole = serde_json::from_str(text);
    whole.or_else(|error| {
        let begun = text.trim_end().trim_end_matches(',');
        serde_json::from_str(&format!("{begun}]")).map_err(|_| error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"[
{"name":"process_name","ph":"M","pid":1,"tid":0,"args":{"name":"guest"}},
{"name":"A","ph":"X","cat":"request","pid":1,"tid":1,"ts":0.0,"dur":1.0,"args":{"kind":"control","node":"nvidiactl","outcome":"ok","payload":32,"status":"NV_OK"}},
{"name":"sentry","ph":"X","cat":"phase","pid":1,"tid":1,"ts":0.0,"dur":1.0},
{"name":"B","ph":"X","cat":"request","pid":1,"tid":1,"ts":0.0,"dur":1.0,"args":{"kind":"control","node":"nvidiactl","outcome":"ok","status":"NV_ERR_NOT_SUPPORTED","refusal":"unknown B"}},
{"name":"C","ph":"X","cat":"request","pid":1,"tid":1,"ts":0.0,"dur":1.0,"args":{"kind":"control","node":"nvidiactl","payload":32,"outcome":"ok","status":"NV_ERR_BUSY_RETRY"}},
{"name":"C","ph":"X","cat":"request","pid":1,"tid":1,"ts":0.0,"dur":1.0,"args":{"kind":"control","node":"nvidiactl","payload":32,"outcome":"ok","status":"NV_ERR_BUSY_RETRY"}},
{"name":"D","ph":"X","cat":"request","pid":1,"tid":1,"ts":0.0,"dur":1.0,"args":{"node":"nvidiactl","payload":32,"outcome":"EINVAL"}},
{"name":"nvidia7","ph":"X","cat":"request","pid":1,"tid":1,"ts":0.0,"dur":1.0,"args":{"kind":"open","node":"nvidia7","outcome":"ENOENT"}}"#;

    fn beyond(outside: Option<&Refusals>) -> Vec<String> {
        let inside = Refusals::of_trace(TRACE).expect("a trace");
        let beyond = inside.beyond(outside).into_iter();
        let line = |it: Beyond| {
            format!(
                "{} {} {:?} {} {:?}",
                it.request,
                it.answer,
                it.by,
                it.times,
                it.outside.unwrap_or_else(|| vec!["?".to_owned()])
            )
        };
        beyond.map(line).collect()
    }

    #[test]
    fn what_is_refused_outside_as_well_is_left_out() {
        let mut outside = Refusals::default();
        let b = r#"B NV_ERR_NOT_SUPPORTED Ringfence 1 []"#;
        let d = r#"D EINVAL Driver 1 []"#;
        let c = r#"C NV_ERR_BUSY_RETRY Driver 2 []"#;
        assert_eq!(beyond(Some(&outside)), [b, c, d]);
        outside.add("C".to_owned(), "NV_ERR_BUSY_RETRY".to_owned(), By::Driver);
        assert_eq!(beyond(Some(&outside)), [b, d]);
        outside.add("D".to_owned(), "EPERM".to_owned(), By::Driver);
        assert_eq!(
            beyond(Some(&outside)),
            [b, r#"D EINVAL Driver 1 ["EPERM"]"#]
        );
        assert_eq!(beyond(None), [b.replace("[]", r#"["?"]"#)]);
    }

    #[test]
    fn a_trace_may_lack_its_end_and_says_what_is_missing() {
        let whole = format!(
            "{TRACE},\n{{\"name\":\"3 are missing\",\"ph\":\"i\",\"pid\":1,\"tid\":1}}\n]\n"
        );
        assert!(Refusals::of_trace(&whole).expect("a trace").incomplete);
        assert!(!Refusals::of_trace(TRACE).expect("a trace").incomplete);
        assert!(Refusals::of_trace(&format!("{TRACE},\n")).is_ok());
        assert!(Refusals::of_trace("nonsense").is_err());
    }
}

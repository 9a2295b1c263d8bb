//! Whose tables serve a release of the driver.
//!
//! A release in the tables is served by its own. One that is not is served by those of a neighbour in its branch, if
//! the neighbours show that nothing allowed changed there: the releases just below and just above it agree, or, where it
//! is newer than all that are known, the last three do. What else there is to say of a release would be a guess, and is
//! left to the user.

use std::fmt;

use crate::policy::Capabilities;
use crate::tables::{RELEASES, ROWS, Release};
use crate::version::DriverVersion;

/// How many of a branch's last releases have to agree for a newer one to be served.
const LAST_RELEASES: usize = 3;

/// Which tables serve a release, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// The release whose tables serve.
    pub tables: DriverVersion,
    pub basis: Basis,
}

/// Why tables serve a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// They are its own.
    Exact,
    /// These releases of its branch, in order, agree in everything that is allowed.
    Inferred(Vec<DriverVersion>),
}

/// No tables serve a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    pub version: DriverVersion,
    /// The known release next to it.
    pub nearest: DriverVersion,
    pub reason: Reason,
}

/// Why no tables serve a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No release of its branch is known.
    UnknownBranch,
    /// Too few releases around it are known to tell.
    TooFew,
    /// These releases around it, in order, differ in what is allowed.
    Differ(Vec<DriverVersion>),
}

/// Finds the tables that serve `version` in a sandbox with these capabilities.
pub fn support(version: &DriverVersion, granted: Capabilities) -> Result<Support, Unsupported> {
    let (older, newer) = around(version);
    if let Some(exact) = newer.first().filter(|release| release.version == *version) {
        return Ok(Support {
            tables: exact.version,
            basis: Basis::Exact,
        });
    }
    let in_branch = |release: &&Release| release.version.branch() == version.branch();
    let below = older.last().filter(in_branch);
    let above = newer.first().filter(in_branch);
    let witnesses: Vec<&Release> = match (below, above) {
        (Some(below), Some(above)) => vec![below, above],
        (Some(_), None) => {
            let branch = older.iter().rev().take_while(in_branch);
            let mut last: Vec<&Release> = branch.take(LAST_RELEASES).collect();
            last.reverse();
            if last.len() < LAST_RELEASES {
                return Err(unsupported(version, Reason::TooFew));
            }
            last
        }
        (None, Some(_)) => return Err(unsupported(version, Reason::TooFew)),
        (None, None) => return Err(unsupported(version, Reason::UnknownBranch)),
    };
    let versions = witnesses.iter().map(|release| release.version).collect();
    let agree = witnesses
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if agree(a, b, granted)));
    match below {
        Some(below) if agree => Ok(Support {
            tables: below.version,
            basis: Basis::Inferred(versions),
        }),
        _ => Err(unsupported(version, Reason::Differ(versions))),
    }
}

/// Whether two releases have the same rows for everything that `granted` allows. Equal rows are one row of the pool.
fn agree(one: &Release, other: &Release, granted: Capabilities) -> bool {
    let allowed = |index: &&u16| {
        let row = ROWS.get(usize::from(**index));
        row.is_some_and(|row| row.capabilities.intersects(granted))
    };
    one.families()
        .into_iter()
        .zip(other.families())
        .all(|(one, other)| one.iter().filter(allowed).eq(other.iter().filter(allowed)))
}

fn unsupported(version: &DriverVersion, reason: Reason) -> Unsupported {
    let (older, newer) = around(version);
    let neighbours = older.last().into_iter().chain(newer.first());
    let by_branch = |other: &DriverVersion| other.branch().abs_diff(version.branch());
    let nearest = neighbours
        .map(|release| release.version)
        .min_by_key(by_branch);
    Unsupported {
        version: *version,
        // There always is one: the tables are not empty.
        nearest: nearest.unwrap_or(*version),
        reason,
    }
}

/// The known releases before `version`, and those from it on.
fn around(version: &DriverVersion) -> (&'static [Release], &'static [Release]) {
    RELEASES.split_at(RELEASES.partition_point(|release| release.version < *version))
}

impl fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unsupported {
            version,
            nearest,
            reason,
        } = self;
        write!(
            formatter,
            "the tables do not have NVIDIA driver {version}, and "
        )?;
        match reason {
            Reason::UnknownBranch => {
                write!(formatter, "no release of the {} branch", version.branch())?
            }
            Reason::TooFew => write!(
                formatter,
                "too few releases of the {} branch to tell what it is like",
                version.branch()
            )?,
            Reason::Differ(releases) => write!(
                formatter,
                "the releases around it, {}, differ in what is allowed",
                list(releases)
            )?,
        }
        write!(formatter, ": the nearest that they have is {nearest}")
    }
}

impl std::error::Error for Unsupported {}

/// Releases as a list in a sentence.
pub fn list(releases: &[DriverVersion]) -> String {
    let texts: Vec<String> = releases.iter().map(DriverVersion::to_string).collect();
    match texts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> DriverVersion {
        text.parse().expect("a version")
    }

    fn served(text: &str) -> Result<Support, Unsupported> {
        support(&version(text), Capabilities::default())
    }

    fn inferred(tables: &str, from: &[&str]) -> Result<Support, Unsupported> {
        Ok(Support {
            tables: version(tables),
            basis: Basis::Inferred(from.iter().map(|text| version(text)).collect()),
        })
    }

    #[test]
    fn known_releases_are_served_by_their_own_tables() {
        for text in ["515.43.04", "535.54.03", "580.142", "595.45.04"] {
            let expected = Support {
                tables: version(text),
                basis: Basis::Exact,
            };
            assert_eq!(served(text), Ok(expected));
        }
    }

    /// Of every branch, since any may have another release tomorrow.
    #[test]
    fn a_release_after_the_last_is_served_if_the_last_three_agree() {
        let granted = Capabilities::default();
        let mut served = 0;
        for branch in RELEASES.chunk_by(|one, other| one.version.branch() == other.version.branch())
        {
            let [.., last] = branch else { continue };
            let next = DriverVersion::new(last.version.branch(), last.version.minor() + 1, None);
            let found = support(&next, granted);
            let [.., one, two, last] = branch else {
                let refused = found.expect_err("too few to tell");
                assert_eq!(refused.reason, Reason::TooFew);
                continue;
            };
            let three = vec![one.version, two.version, last.version];
            if agree(one, two, granted) && agree(two, last, granted) {
                let expected = Support {
                    tables: last.version,
                    basis: Basis::Inferred(three),
                };
                assert_eq!(found, Ok(expected));
                served += 1;
            } else {
                let refused = found.expect_err("the last three differ");
                assert_eq!(refused.reason, Reason::Differ(three));
            }
        }
        assert!(served > 0);
    }

    #[test]
    fn a_release_between_two_is_served_if_they_agree() {
        let around = ["580.126.20", "580.142"];
        assert_eq!(served("580.130"), inferred("580.126.20", &around));
    }

    #[test]
    fn a_release_between_two_that_differ_is_refused() {
        let differing = RELEASES.windows(2).find_map(|pair| match pair {
            [one, other]
                if one.version.branch() == other.version.branch()
                    && other.version.minor() > one.version.minor() + 1
                    && !agree(one, other, Capabilities::default()) =>
            {
                Some((one.version, other.version))
            }
            _ => None,
        });
        let (one, other) = differing.expect("two releases of a branch that differ");
        let between = DriverVersion::new(one.branch(), one.minor() + 1, None);
        let refused = support(&between, Capabilities::default()).expect_err("no tables");
        assert_eq!(refused.reason, Reason::Differ(vec![one, other]));
        // Nothing is allowed, and so they agree.
        assert!(support(&between, Capabilities::NONE).is_ok());
    }

    #[test]
    fn nothing_is_guessed_of_other_releases() {
        let last = |is_before: fn(&DriverVersion) -> bool| {
            let mut versions = RELEASES.iter().map(|release| release.version);
            let found = versions.rfind(is_before).expect("a release");
            found.to_string()
        };
        let newest = last(|_| true);
        for (text, nearest, reason) in [
            ("999.10", newest.as_str(), Reason::UnknownBranch),
            ("390.48", "515.43.04", Reason::UnknownBranch),
            (
                "581.10",
                last(|version| version.branch() <= 580).as_str(),
                Reason::UnknownBranch,
            ),
            ("580.10", "580.65.06", Reason::TooFew),
        ] {
            let refused = served(text).expect_err("no tables");
            assert_eq!(
                refused,
                Unsupported {
                    version: version(text),
                    nearest: version(nearest),
                    reason,
                }
            );
        }
        assert_eq!(
            served("999.10").expect_err("no tables").to_string(),
            format!(
                "the tables do not have NVIDIA driver 999.10, and no release of the 999 branch: the nearest that they have \
                 is {newest}"
            )
        );
    }
}

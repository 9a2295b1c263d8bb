//! What was measured by each way, as one more table: the terminal and the page show the same cells.

use super::{Report, Row};
use crate::value::ByWay;
use crate::ways;

/// What stands where there is no figure.
const NONE: &str = "–";

/// A table of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    pub heads: Vec<&'static str>,
    /// For each value that was measured by ways: its claim, what it is, and a cell for each way.
    pub lines: Vec<Vec<String>>,
    /// Why ways have no figures: each with a reason that holds for more than one program.
    pub reasons: Vec<String>,
}

/// The table; `None` if nothing was measured by ways.
pub fn columns(report: &Report) -> Option<Columns> {
    let rows = || {
        let entries = report.claims.iter();
        entries.flat_map(|entry| entry.values.iter().map(move |row| (entry.name, row)))
    };
    let cells = || rows().flat_map(|(_, row)| &row.by_way);
    let names: Vec<&'static str> = ways::ALL
        .iter()
        .map(|way| way.name())
        .filter(|name| cells().any(|cell| cell.way == *name))
        .collect();
    if names.is_empty() {
        return None;
    }
    let lines = rows()
        .filter(|(_, row)| !row.by_way.is_empty())
        .map(|(claim, row)| {
            let of_ways = names.iter().map(|name| {
                let found = row.by_way.iter().find(|cell| cell.way == *name);
                found.map_or_else(|| NONE.to_owned(), |cell| text(row, cell))
            });
            let first = [claim.to_owned(), row.of.to_owned()].into_iter();
            first.chain(of_ways).collect()
        })
        .collect();
    let mut reasons: Vec<String> = Vec::new();
    for cell in cells() {
        if let Some(reason) = &cell.not_measured {
            let text = format!(
                "{} was not measured: {}; {}",
                cell.way, reason.reason, reason.remedy
            );
            if !reasons.contains(&text) {
                reasons.push(text);
            }
        }
    }
    Some(Columns {
        heads: ["claim", "value"].into_iter().chain(names).collect(),
        lines,
        reasons,
    })
}

/// What was measured, and in parentheses how that stands to running natively.
fn text(row: &Row, cell: &ByWay) -> String {
    match (&cell.not_measured, cell.value) {
        (Some(_), _) => NONE.to_owned(),
        (None, None) => cell.measured.clone(),
        (None, Some(value)) => format!("{} ({})", cell.measured, row.number(value)),
    }
}

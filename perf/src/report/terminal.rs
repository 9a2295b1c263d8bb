//! The table on the terminal.

use super::columns::columns;
use super::{Report, Row};

/// Heads of the columns.
const HEADS: [&str; 8] = [
    "claim",
    "value",
    "measured",
    "beside",
    "",
    "quartiles",
    "bar",
    "",
];

/// The machine, a line for each value, a table of the ways, and why others are missing.
pub fn table(report: &Report) -> String {
    let machine = report.machine.lines();
    let mut text: String = machine
        .iter()
        .map(|(what, is)| format!("{what:<12} {is}\n"))
        .collect();
    if report.quick {
        text.push_str("(--quick: little was measured, and the figures are rough)\n");
    }
    let mut lines = vec![HEADS.map(str::to_owned).to_vec()];
    let mut reasons = Vec::new();
    for entry in &report.claims {
        for row in &entry.values {
            lines.push(cells(entry.name, row).to_vec());
            if let Some(not_measured) = &row.not_measured {
                reasons.push(format!(
                    "{} was not measured: {}; {}\n",
                    entry.name, not_measured.reason, not_measured.remedy
                ));
            }
        }
        reasons.extend(
            entry
                .notes
                .iter()
                .map(|note| format!("{}: {note}\n", entry.name)),
        );
    }
    reasons.dedup();
    text.push('\n');
    text.push_str(&aligned(&lines));
    if let Some(columns) = columns(report) {
        let heads = columns
            .heads
            .iter()
            .map(|head| (*head).to_owned())
            .collect();
        let lines: Vec<_> = [heads].into_iter().chain(columns.lines).collect();
        text.push_str("\nBy each way, and in parentheses beside running natively:\n\n");
        text.push_str(&aligned(&lines));
        reasons.extend(columns.reasons.iter().map(|reason| format!("{reason}\n")));
    }
    if !reasons.is_empty() {
        text.push('\n');
    }
    reasons.iter().for_each(|reason| text.push_str(reason));
    text
}

fn cells(claim: &str, row: &Row) -> [String; 8] {
    [
        claim.to_owned(),
        row.of.to_owned(),
        row.measured.clone(),
        row.beside.clone(),
        row.value_text(),
        row.quartiles_text(),
        row.bar_text(),
        row.verdict_text().to_owned(),
    ]
}

/// Columns as wide as their widest cell. All lines have as many cells as the first.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widths = lines
            .iter()
            .filter_map(|line| Some(line.get(column)?.chars().count()));
        widths.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    lines
        .iter()
        .map(|line| {
            let cells = line.iter().zip(&widths);
            let text: String = cells
                .map(|(cell, width)| format!("{cell:<width$}  "))
                .collect();
            format!("{}\n", text.trim_end())
        })
        .collect()
}

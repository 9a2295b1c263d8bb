//! The short table at the end of a run, for who waits for it.

use crate::seen::{Side, Tried};

/// A line for each program.
pub fn table(tried: &[Tried]) -> String {
    let rows: Vec<[String; 5]> = tried.iter().map(row).collect();
    let head = ["program", "outside", "inside", "result", "survey"].map(str::to_owned);
    let all: Vec<&[String; 5]> = std::iter::once(&head).chain(&rows).collect();
    let width = |column: usize| {
        let cells = all.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let lines = all.iter().map(|row| {
        let cells = row.iter().zip(widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn row(tried: &Tried) -> [String; 5] {
    let side = |side: &Option<Side>| {
        let ended = side.as_ref().map(|side| side.ended.clone());
        ended.unwrap_or_else(|| "-".to_owned())
    };
    let refused = tried.refused_in_words();
    let refused = refused.map(|words| format!(", {words}"));
    [
        tried.name.clone(),
        side(&tried.outside),
        side(&tried.inside),
        tried.result().replace('*', "") + &refused.unwrap_or_default(),
        survey(tried),
    ]
}

fn survey(tried: &Tried) -> String {
    let found = match &tried.survey {
        _ if tried.survey_failed.is_some() => return "failed".to_owned(),
        None => return "-".to_owned(),
        Some(lines) if lines.is_empty() => "empty".to_owned(),
        Some(lines) => format!("{} would be refused", lines.len()),
    };
    match tried.survey_unreadable {
        0 => found,
        count => format!("{found}, {count} not read"),
    }
}

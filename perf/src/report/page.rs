//! The page: everything in one file that a browser opens, without scripts and without anything from elsewhere.

use super::columns::columns;
use super::{Entry, Report, Row, plots};
use crate::measure::duration;
use crate::ways;

const STYLE: &str = "\
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { text-align: left; padding: .25em .8em .25em 0; border-bottom: 1px solid #ddd; vertical-align: top }
.met { color: #00693e } .missed { color: #b00020; font-weight: 600 } .absent { color: #777 }
section { margin-top: 2.5em } svg { max-width: 100%; height: auto } .how { color: #555; max-width: 46em }";

/// The whole page.
pub fn page(report: &Report) -> String {
    let machine: String = report
        .machine
        .lines()
        .iter()
        .map(|(what, is)| {
            format!(
                "<tr><th>{}</th><td>{}</td></tr>\n",
                escape(what),
                escape(is)
            )
        })
        .collect();
    let rows: String = report.claims.iter().map(summary).collect();
    let by_way = by_way(report);
    let sections: String = report.claims.iter().map(section).collect();
    let rough = if report.quick {
        "<p>Little was measured (<code>--quick</code>), and the figures are rough.</p>\n"
    } else {
        ""
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>What Ringfence costs</title>\n\
         <style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>What Ringfence costs</h1>\n\
         <p>Each value is what was measured in relation to what stands beside it, measured in turns with it in the \
         same run. The quartiles are of that relation over the rounds.</p>\n{rough}\
         <table>\n<tr><th>claim</th><th>value</th><th>measured</th><th>beside</th><th></th><th>quartiles</th>\
         <th>bar</th><th></th></tr>\n{rows}</table>\n{by_way}\
         <h2>The machine</h2>\n<table>\n{machine}</table>\n{sections}</body>\n</html>\n"
    )
}

/// The table of the ways, if anything was measured by them.
fn by_way(report: &Report) -> String {
    let Some(columns) = columns(report) else {
        return String::new();
    };
    let line = |cells: &mut dyn Iterator<Item = &str>, kind: &str| {
        let cells: String = cells
            .map(|cell| format!("<{kind}>{}</{kind}>", escape(cell)))
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let heads = line(&mut columns.heads.iter().copied(), "th");
    let lines: String = columns
        .lines
        .iter()
        .map(|cells| line(&mut cells.iter().map(String::as_str), "td"))
        .collect();
    let reasons = columns.reasons.iter();
    let reasons: String = reasons
        .map(|reason| format!("<p class=\"absent\">{}</p>\n", escape(reason)))
        .collect();
    let what = ways::TABLE.iter().map(|way| {
        let (name, how) = (escape(way.name), escape(way.how));
        format!("<tr><th>{name}</th><td>{how}</td></tr>\n")
    });
    let what: String = what.collect();
    format!(
        "<h2>By each way</h2>\n<p>In parentheses: beside running natively.</p>\n\
         <table>\n{heads}{lines}</table>\n{reasons}<table>\n{what}</table>\n"
    )
}

fn summary(entry: &Entry) -> String {
    entry
        .values
        .iter()
        .map(|row| {
            let name = format!("<a href=\"#{0}\">{0}</a>", escape(entry.name));
            format!("<tr><td>{name}</td>{}</tr>\n", cells(row))
        })
        .collect()
}

fn cells(row: &Row) -> String {
    if let Some(reason) = &row.not_measured {
        return format!(
            "<td>{}</td><td colspan=\"4\" class=\"absent\">not measured: {}; {}</td><td>{}</td><td></td>",
            escape(row.of),
            escape(&reason.reason),
            escape(&reason.remedy),
            escape(&row.bar_text())
        );
    }
    let class = match row.verdict_text() {
        "met" => "met",
        "MISSED" => "missed",
        _ => "absent",
    };
    let texts = [
        row.of,
        &row.measured,
        &row.beside,
        &row.value_text(),
        &row.quartiles_text(),
        &row.bar_text(),
    ];
    let plain: String = texts
        .iter()
        .map(|text| format!("<td>{}</td>", escape(text)))
        .collect();
    format!("{plain}<td class=\"{class}\">{}</td>", row.verdict_text())
}

fn section(entry: &Entry) -> String {
    let mut text = format!(
        "<section id=\"{0}\">\n<h2>{0}</h2>\n<p>{1}, beside {2}.</p>\n<p class=\"how\">{3}</p>\n",
        escape(entry.name),
        escape(&capitalized(entry.title)),
        escape(entry.beside),
        escape(entry.how)
    );
    for note in &entry.notes {
        text.push_str(&format!("<p>{}</p>\n", escape(note)));
    }
    if !entry.distributions.is_empty() {
        text.push_str(&times(entry));
        text.extend(plots::distributions(&entry.distributions));
    }
    for curve in &entry.curves {
        text.push_str(&format!(
            "<h3>{}</h3>\n",
            escape(&capitalized(&curve.title))
        ));
        text.extend(plots::curve(curve));
    }
    text.push_str("</section>\n");
    text
}

/// The times of a claim.
fn times(entry: &Entry) -> String {
    const SHOWN: [(f64, &str); 4] = [
        (0.5, "median"),
        (0.9, "90%"),
        (0.99, "99%"),
        (0.999, "99.9%"),
    ];
    let row = |cells: Vec<String>, kind: &str| {
        let cells: String = cells
            .iter()
            .map(|cell| format!("<{kind}>{}</{kind}>", escape(cell)))
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let time = |microseconds: f64| duration(microseconds * 1e3);
    let heads = ["", "samples", "least"].into_iter();
    let heads = heads.chain(SHOWN.map(|(_, name)| name)).chain(["most"]);
    let mut text = format!("<table>\n{}", row(heads.map(str::to_owned).collect(), "th"));
    for times in &entry.distributions {
        let points = &times.quantiles.points;
        let quantile = |of: f64| {
            let found = points.iter().find(|(part, _)| *part == of);
            found.map_or_else(String::new, |(_, at_most)| time(*at_most))
        };
        let mut cells = vec![
            times.quantiles.label.clone(),
            times.count.to_string(),
            time(times.least),
        ];
        cells.extend(SHOWN.iter().map(|(part, _)| quantile(*part)));
        cells.push(time(times.most));
        text.push_str(&row(cells, "td"));
    }
    text.push_str("</table>\n");
    text
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}

/// Text as text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
